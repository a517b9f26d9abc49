// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* The huge zero page, protected by userfaultfd, is replaced by a writable huge page of a device. */
#include "find.h"

#include <setjmp.h>

static sigjmp_buf caught;

static void on_bus_error(int signal)
{
	(void)signal;
	siglongjmp(caught, 1);
}

static int is_protected(volatile char *at)
{
	if (sigsetjmp(caught, 1))
		return 1;
	*at = 1;
	return 0;
}

int main(void)
{
	int uffd = uffd_open(UFFD_FEATURE_SIGBUS | UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	char *at, *copy = malloc(HUGE);
	int fd = device();
	volatile char sink = 0;

	write_file("/sys/kernel/mm/transparent_hugepage/use_zero_page", "1");
	at = map_huge();
	signal(SIGBUS, on_bus_error);
	sink += at[0];
	uffd_register(uffd, at, HUGE, UFFDIO_REGISTER_MODE_WP);
	uffd_protect(uffd, at, HUGE);
	if (with_bit(at, 512, PM_UFFD_WP) != 512)
		cannot("the huge zero page cannot be protected");
	/* Whether it goes there is the kernel's choice. */
	command(fd, HMM_DMIRROR_MIGRATE_TO_DEV, at, 512, copy);
	size_t caught_writes = 0;

	for (size_t page = 0; page < 512; page += 8)
		caught_writes += is_protected(at + page * PAGE);
	if (caught_writes != 64)
		fault("%zu of 64 writes to protected pages were let through", 64 - caught_writes);
	right("all writes to the protected huge page were caught");
}
