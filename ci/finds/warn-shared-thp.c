// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* A soft-dirty huge page that a parent shares with its child goes to a device. The warning takes CONFIG_DEBUG_VM. */
#include "find.h"

int main(void)
{
	static const char *const texts[] = { "remove_migration_pmd", NULL };
	int fd = device();
	char *at = filled_huge();

	forget_warnings();
	int log = log_open();
	pid_t child = sharing_child();

	to_device(fd, at, 512);
	kill_child(child);
	if (log_has(log, texts))
		fault("the kernel warned of an entry that is right");
	right("the kernel did not warn");
}
