// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* The zero page, protected by userfaultfd, is replaced by a writable page of a device: a write needs no permission any more. */
#include "find.h"

#include <setjmp.h>

static sigjmp_buf caught;

static void on_bus_error(int signal)
{
	(void)signal;
	siglongjmp(caught, 1);
}

/* Whether userfaultfd catches a write, which it does by SIGBUS here. */
static int is_protected(volatile char *at)
{
	if (sigsetjmp(caught, 1))
		return 1;
	*at = 1;
	return 0;
}

int main(void)
{
	enum { PAGES = 64 };
	int uffd = uffd_open(UFFD_FEATURE_SIGBUS | UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	char *at = map_pages(PAGES), *copy = malloc(PAGES * PAGE);
	int fd = device();
	volatile char sink = 0;
	size_t caught_writes = 0;

	signal(SIGBUS, on_bus_error);
	for (size_t page = 0; page < PAGES; page++)
		sink += at[page * PAGE];
	uffd_register(uffd, at, PAGES * PAGE, UFFDIO_REGISTER_MODE_WP);
	uffd_protect(uffd, at, PAGES * PAGE);
	if (with_bit(at, PAGES, PM_UFFD_WP) != PAGES || !is_protected(at))
		cannot("the zero page cannot be protected");
	/* Whether they go there is the kernel's choice. */
	command(fd, HMM_DMIRROR_MIGRATE_TO_DEV, at, PAGES, copy);
	for (size_t page = 0; page < PAGES; page++)
		caught_writes += is_protected(at + page * PAGE);
	if (caught_writes != PAGES)
		fault("%zu of %d writes to protected pages were let through", PAGES - caught_writes, PAGES);
	right("all writes to protected pages were caught");
}
