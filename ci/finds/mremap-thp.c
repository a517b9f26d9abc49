// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* mremap() of a clean huge page on a device: an incremental dump does not find it at its new address. */
#include "find.h"

int main(void)
{
	int fd = device();
	char *at = filled_huge(), *to = map_huge();

	clear_soft_dirty();
	huge_to_device(fd, at);
	if (with_bit(at, 512, PM_SOFT_DIRTY))
		cannot("the huge page is soft-dirty before it moves");
	if (mremap(at, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		cannot("mremap: %s", strerror(errno));
	if (on_device(fd, to, 512, 1) != 512)
		cannot("the huge page was split when it moved");
	size_t dirty = with_bit(to, 512, PM_SOFT_DIRTY);

	if (dirty != 512)
		fault("%zu of 512 pages are not soft-dirty at their new address", 512 - dirty);
	right("all pages are soft-dirty at their new address");
}
