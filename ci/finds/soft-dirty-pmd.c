// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* A huge page that was on a device when clear_refs cleared its soft-dirty bit. */
#include "find.h"

int main(void)
{
	char *at = filled_huge();
	int fd = device();

	huge_to_device(fd, at);
	clear_soft_dirty();
	size_t dirty = with_bit(at, 512, PM_SOFT_DIRTY);

	if (dirty)
		fault("%zu of 512 pages are soft-dirty that were not written", dirty);
	at[5 * PAGE] = 1;
	if (!with_bit(at + 5 * PAGE, 1, PM_SOFT_DIRTY))
		fault("a write to the huge page was not noticed");
	right("the huge page was clean, and the write to it was noticed");
}
