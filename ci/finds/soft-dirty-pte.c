// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* Writes to pages that were on a device when clear_refs cleared their soft-dirty bits. */
#include "find.h"

int main(void)
{
	enum { PAGES = 64 };
	char *at = map_pages(PAGES);
	int fd = device();

	fill(at, PAGES);
	to_device(fd, at, PAGES);
	clear_soft_dirty();
	for (size_t page = 0; page < PAGES; page++)
		at[page * PAGE + 100] = 1;
	size_t dirty = with_bit(at, PAGES, PM_SOFT_DIRTY);

	if (dirty < PAGES)
		fault("%zu of %d writes were not noticed", PAGES - dirty, PAGES);
	right("all %d writes were noticed", PAGES);
}
