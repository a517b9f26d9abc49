// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* MADV_DONTNEED of a huge page while a fault migrates it back from a device. What goes wrong shows in the kernel's log. */
#include "find.h"

#include <pthread.h>

static char *volatile at;
/* The round that the zapper is to do, from 1 on; it makes it negative when it has done it. */
static volatile int round_of_zapper, stop;

static void *zap(void *argument)
{
	int done = 0;

	(void)argument;
	while (!stop) {
		if (round_of_zapper != done + 1) {
			sched_yield();
			continue;
		}
		/* Later and later in the migration, and from the beginning again. */
		for (volatile int spin = 0; spin < done % 40 * 20000; spin++)
			;
		for (int times = 0; times < 4; times++)
			madvise(at, HUGE, MADV_DONTNEED);
		done++;
		__sync_synchronize();
		round_of_zapper = -done;
	}
	return NULL;
}

static void races(void)
{
	enum { ROUNDS = 80 };
	int fd = device();
	pthread_t zapper;

	at = map_huge();
	if (pthread_create(&zapper, NULL, zap, NULL))
		cannot("no second thread");
	for (int round = 1; round <= ROUNDS; round++) {
		volatile char sink;

		fill(at, 512);
		huge_to_device(fd, at);
		round_of_zapper = round;
		sink = at[(round % 512) * PAGE];
		(void)sink;
		while (round_of_zapper != -round)
			sched_yield();
	}
	stop = 1;
	pthread_join(zapper, NULL);
	_exit(0);
}

int main(void)
{
	static const char *const texts[] = { "BUG: ", "kernel BUG at", "Oops", "WARNING: ", "page dumped because", NULL };
	int log = log_open(), status, wait;
	pid_t child = TRY(fork());

	if (!child)
		races();
	for (;;) {
		wait = waitpid(child, &status, WNOHANG);
		if (log_has(log, texts))
			fault("a huge page was unmapped once too often");
		if (wait == child)
			break;
		usleep(50000);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 4)
		cannot("the race did not take place");
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fault("the process ended with status %x", status);
	right("the huge page came back or was cleared, each time");
}
