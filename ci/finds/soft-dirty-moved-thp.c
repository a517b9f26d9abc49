// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* A huge page that nothing writes becomes soft-dirty when it moves to another node. No device takes part. */
#include "find.h"

int main(void)
{
	char *at = filled_huge();
	void *page = at;
	int node = -1, status = -1;

	TRY(syscall(SYS_move_pages, 0, 1L, &page, NULL, &status, 0));
	node = !status;
	clear_soft_dirty();
	if (with_bit(at, 512, PM_SOFT_DIRTY))
		cannot("clear_refs left soft-dirty bits");
	TRY(syscall(SYS_move_pages, 0, 1L, &page, &node, &status, 2));
	if (status != node)
		cannot("the huge page did not move to node %d: %d; it takes two nodes (numa=fake=2)", node, status);
	size_t dirty = with_bit(at, 512, PM_SOFT_DIRTY);

	if (dirty)
		fault("%zu of 512 pages are soft-dirty that were not written", dirty);
	right("no page is soft-dirty");
}
