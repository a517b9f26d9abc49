// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* A process that has the test device open twice reads by one what the other migrated. */
#include "find.h"

int main(void)
{
	enum { PAGES = 8 };
	static char copy[PAGES * PAGE];
	int fd = device(), second = device();
	char *at = map_pages(PAGES);

	fill(at, PAGES);
	to_device(fd, at, PAGES);
	if (command(second, HMM_DMIRROR_READ, at, PAGES, copy))
		fault("the device cannot read: %s", strerror(errno));
	for (size_t page = 0; page < PAGES; page++)
		if (!is_filled(copy + page * PAGE, page))
			fault("the device read something else in place of page %zu", page);
	right("the device read the pages");
}
