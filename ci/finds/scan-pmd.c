// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* PAGEMAP_SCAN cannot protect a huge page on a device: it is written whenever it is asked for. */
#include "find.h"

int main(void)
{
	int uffd = uffd_open(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED);
	char *at = filled_huge();
	int fd = device();

	uffd_register(uffd, at, HUGE, UFFDIO_REGISTER_MODE_WP);
	huge_to_device(fd, at);
	if (scan_written(at, 512) != 512)
		cannot("the first scan did not find the huge page written");
	size_t written = scan_written(at, 512);

	if (written)
		fault("%zu of 512 pages count as written just after they were protected", written);
	at[3 * PAGE] = 1;
	if (!scan_written(at, 512))
		fault("a write to the huge page was not noticed");
	right("the huge page stays protected until it is written");
}
