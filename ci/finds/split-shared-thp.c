// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* A huge page that a parent shares with its child is split while it goes to a device that has single pages only. */
#include "find.h"

int main(void)
{
	static const char *const texts[] = { "BUG: ", "kernel BUG at", "Oops", "WARNING: ", "page dumped because", NULL };
	char *at, *copy = malloc(HUGE);
	int log = log_open(), fd, status, wait;
	pid_t child, parent;
	int go[2], done[2];
	char byte;

	TRY(pipe(go));
	TRY(pipe(done));
	/* Parent and child of the huge page both are children of this process, which survives what may happen to them. */
	parent = TRY(fork());
	if (!parent) {
		at = filled_huge();
		child = TRY(fork());
		if (!child) {
			TRY(read(go[0], &byte, 1));
			for (size_t page = 0; page < 512; page++)
				if (!is_filled(at + page * PAGE, page))
					_exit(1);
			_exit(0);
		}
		fd = device();
		/* The next allocation of device memory fails, which is that of the huge page. */
		if (command(fd, HMM_DMIRROR_FLAGS, NULL, HMM_DMIRROR_FLAG_FAIL_ALLOC, NULL))
			_exit(4);
		command(fd, HMM_DMIRROR_MIGRATE_TO_DEV, at, 512, copy);
		TRY(write(go[1], "", 1));
		waitpid(child, &status, 0);
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			_exit(2);
		for (size_t page = 0; page < 512; page++)
			if (!is_filled(at + page * PAGE, page))
				_exit(3);
		_exit(0);
	}
	for (int round = 0; round < 1200; round++) {
		wait = waitpid(parent, &status, WNOHANG);
		if (log_has(log, texts))
			fault("the kernel met a single page where it expected a huge one");
		if (wait == parent)
			break;
		usleep(50000);
	}
	if (wait != parent)
		fault("a process hangs");
	if (!WIFEXITED(status))
		fault("a process ended with status %x", status);
	if (WEXITSTATUS(status) == 4)
		cannot("the device's allocations cannot be made to fail");
	if (WEXITSTATUS(status))
		fault("the %s of the huge page has lost contents", WEXITSTATUS(status) == 2 ? "child" : "parent");
	right("parent and child have all their contents");
}
