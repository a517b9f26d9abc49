// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* UFFDIO_MOVE of a huge page that is on a device. */
#include "find.h"

int main(void)
{
	int uffd = uffd_open(UFFD_FEATURE_MOVE);
	char *from = filled_huge(), *to = map_huge();
	int fd = device();
	int tries = 0;

	huge_to_device(fd, from);
	uffd_register(uffd, to, HUGE, UFFDIO_REGISTER_MODE_MISSING);
	struct uffdio_move move = { .dst = (uintptr_t)to, .src = (uintptr_t)from, .len = HUGE };

	while (ioctl(uffd, UFFDIO_MOVE, &move))
		if ((errno != EAGAIN && errno != EBUSY) || tries++ > 1000)
			fault("the huge page cannot be moved: %s", strerror(errno));
	for (size_t page = 0; page < 512; page++)
		if (!is_filled(to + page * PAGE, page))
			fault("page %zu lost its contents", page);
	right("the huge page was moved");
}
