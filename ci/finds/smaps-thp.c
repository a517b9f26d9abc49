// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* smaps of a huge page on a device that a parent shares with its child. */
#include "find.h"

int main(void)
{
	int fd = device();
	char *at = filled_huge();
	pid_t child = sharing_child();
	long before = smaps(at, "Pss");

	to_device(fd, at, 512);
	if (on_device(fd, at, 512, 1) != 512)
		cannot("the huge page was split on its way to the device");
	long pss = smaps(at, "Pss");

	kill_child(child);
	if (before != 1024)
		cannot("Pss is %ld KiB in system memory", before);
	if (pss != before)
		fault("Pss is %ld KiB for each of two processes that share 2048 KiB", pss);
	right("Pss is %ld KiB", pss);
}
