// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* fork() and mprotect() take write permission from pages on a device, and with it the soft-dirty bit. */
#include "find.h"

enum { PAGES = 64 };

static char *written_on_device(int fd, char *at, size_t pages)
{
	fill(at, pages);
	clear_soft_dirty();
	for (size_t page = 0; page < pages; page++)
		at[page * PAGE + 200] = 1;
	to_device(fd, at, pages);
	if (with_bit(at, pages, PM_SOFT_DIRTY) != pages)
		cannot("the writes were not noticed even before");
	return at;
}

int main(void)
{
	int fd = device();
	char *at = written_on_device(fd, map_pages(PAGES), PAGES);

	kill_child(sharing_child());
	size_t forked = PAGES - with_bit(at, PAGES, PM_SOFT_DIRTY);

	at = written_on_device(fd, map_pages(PAGES), PAGES);
	TRY(mprotect(at, PAGES * PAGE, PROT_READ));
	size_t protected = PAGES - with_bit(at, PAGES, PM_SOFT_DIRTY);

	at = written_on_device(fd, filled_huge(), 512);
	TRY(mprotect(at, HUGE, PROT_READ));
	size_t huge = 512 - with_bit(at, 512, PM_SOFT_DIRTY);

	if (forked || protected || huge)
		fault("writes forgotten: %zu of %d by fork(), %zu of %d by mprotect(), %zu of 512 of a huge page",
		      forked, PAGES, protected, PAGES, huge);
	right("no write was forgotten by fork() and mprotect()");
}
