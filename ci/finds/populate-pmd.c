// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* A device populates a huge page in memory that was never touched, after clear_refs. Writes to it are not noticed. */
#include "find.h"

int main(void)
{
	char *at = map_huge();
	int fd = device();

	clear_soft_dirty();
	huge_to_device(fd, at);
	at[7 * PAGE] = 1;
	size_t dirty = with_bit(at + 7 * PAGE, 1, PM_SOFT_DIRTY);

	if (!dirty)
		fault("the page was written and is not soft-dirty");
	right("the write was noticed");
}
