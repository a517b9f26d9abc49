// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* PAGEMAP_SCAN protects pages on a device, and calls them written when they are only read. */
#include "find.h"

int main(void)
{
	enum { PAGES = 64 };
	int uffd = uffd_open(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED);
	char *at = map_pages(PAGES);
	int fd = device();
	volatile char sink = 0;

	uffd_register(uffd, at, PAGES * PAGE, UFFDIO_REGISTER_MODE_WP);
	fill(at, PAGES);
	to_device(fd, at, PAGES);
	if (scan_written(at, PAGES) != PAGES)
		cannot("the first scan did not find all pages written");
	for (size_t page = 0; page < PAGES; page++)
		sink += at[page * PAGE];
	size_t written = scan_written(at, PAGES);

	if (written)
		fault("%zu of %d pages count as written that were only read", written, PAGES);
	at[3 * PAGE] = 1;
	if (scan_written(at, PAGES) != 1)
		fault("a write to a page was not noticed");
	right("no page counts as written that was only read");
}
