// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* A huge page that nothing writes becomes soft-dirty when its entry is split. No device takes part. */
#include "find.h"

int main(void)
{
	char *at = filled_huge();

	clear_soft_dirty();
	if (with_bit(at, 512, PM_SOFT_DIRTY))
		cannot("clear_refs left soft-dirty bits");
	TRY(madvise(at + 511 * PAGE, PAGE, MADV_DONTNEED));
	size_t dirty = with_bit(at, 511, PM_SOFT_DIRTY);

	if (dirty)
		fault("%zu of 511 pages are soft-dirty that were not written", dirty);
	right("no page is soft-dirty");
}
