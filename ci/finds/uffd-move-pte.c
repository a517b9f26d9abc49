// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* UFFDIO_MOVE of pages that are on a device. */
#include "find.h"

int main(void)
{
	enum { PAGES = 64 };
	int uffd = uffd_open(UFFD_FEATURE_MOVE);
	char *from = map_pages(PAGES), *to = map_pages(PAGES);
	int fd = device();

	fill(from, PAGES);
	to_device(fd, from, PAGES);
	uffd_register(uffd, to, PAGES * PAGE, UFFDIO_REGISTER_MODE_MISSING);
	for (size_t page = 0; page < PAGES; page++) {
		struct uffdio_move move = {
			.dst = (uintptr_t)to + page * PAGE,
			.src = (uintptr_t)from + page * PAGE,
			.len = PAGE,
		};
		int tries = 0;

		while (ioctl(uffd, UFFDIO_MOVE, &move))
			if ((errno != EAGAIN && errno != EBUSY) || tries++ > 1000)
				fault("page %zu cannot be moved: %s", page, strerror(errno));
	}
	for (size_t page = 0; page < PAGES; page++)
		if (!is_filled(to + page * PAGE, page))
			fault("page %zu lost its contents", page);
	right("all %d pages were moved", PAGES);
}
