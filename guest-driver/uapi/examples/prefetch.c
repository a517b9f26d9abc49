/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause */
/*
 * Begins to move memory to the device, works on other memory meanwhile, and asks now and then how far it is.
 * Usage: prefetch [/dev/hmmN]
 */
#include "virtio_hmm.h"

#include <err.h>
#include <fcntl.h>
#include <stdio.h>

#define BYTES (64u << 20)

int main(int argc, char **argv)
{
	int node = open(argc > 1 ? argv[1] : "/dev/hmm0", O_RDWR | O_CLOEXEC);
	unsigned char *memory = (unsigned char *)mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
						      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct hmm_prefetch prefetch;
	struct hmm_wait wait;
	uint64_t work = 1;

	if (node < 0)
		err(1, "cannot open the node");
	if (memory == MAP_FAILED)
		err(1, "mmap");
	memset(memory, 1, BYTES);

	memset(&prefetch, 0, sizeof(prefetch));
	prefetch.direction = HMM_TO_DEVICE;
	prefetch.start = (uintptr_t)memory;
	prefetch.end = (uintptr_t)memory + BYTES;
	if (ioctl(node, HMM_PREFETCH, &prefetch) != 0)
		err(1, "PREFETCH");

	do {
		for (int step = 0; step < 100000; step++)
			work = work * 6364136223846793005u + 1;
		memset(&wait, 0, sizeof(wait));
		wait.id = prefetch.id;
		/* With timeout_ms = HMM_WAIT_FOR_EVER it would wait for the end. 0 only asks. */
		while (ioctl(node, HMM_WAIT, &wait) != 0) {
			if (errno != EINTR)
				err(1, "WAIT");
		}
	} while (wait.state == HMM_PREFETCH_RUNNING);

	if (wait.state != HMM_PREFETCH_DONE) {
		errno = (int)wait.error;
		err(1, "the prefetch ended before the end of its range");
	}
	printf("%llu pages moved\n", (unsigned long long)wait.pages_moved);
	return work == 0;
}
