// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* A process is killed while the device evicts its memory. The use after free shows with CONFIG_KASAN. */
#include "find.h"

enum { PAGES = 4096, ROUNDS = 24 };

/* Has its memory on the device until it is killed. */
static void victim(int ready)
{
	int fd = device();
	char *at = map_pages(PAGES);

	fill(at, PAGES);
	for (size_t page = 0; page < PAGES; page += 512)
		to_device(fd, at + page * PAGE, 512);
	TRY(write(ready, "", 1));
	for (;;)
		pause();
}

int main(void)
{
	static const char *const texts[] = { "BUG: KASAN", NULL };
	int log = log_open(), fd = device();

	for (int round = 0; round < ROUNDS; round++) {
		int ready[2], status;
		char byte;
		pid_t child, killer;

		TRY(pipe(ready));
		child = TRY(fork());
		if (!child)
			victim(ready[1]);
		close(ready[1]);
		if (read(ready[0], &byte, 1) != 1) {
			waitpid(child, &status, 0);
			cannot("no memory went to the device");
		}
		close(ready[0]);
		killer = TRY(fork());
		if (!killer) {
			usleep(2000 * (round % 12) * (round % 12));
			kill(child, SIGKILL);
			_exit(0);
		}
		if (command(fd, HMM_DMIRROR_RELEASE, NULL, 1, NULL))
			cannot("the device does not evict: %s", strerror(errno));
		waitpid(killer, NULL, 0);
		waitpid(child, NULL, 0);
		if (log_has(log, texts))
			fault("memory was used after it was freed, in round %d", round + 1);
	}
	right("nothing was used after it was freed, in %d rounds", ROUNDS);
}
