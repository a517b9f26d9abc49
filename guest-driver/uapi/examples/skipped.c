/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause */
/*
 * Tries to move memory of which a part cannot move, and says why it stayed.
 * Usage: skipped [/dev/hmmN]
 */
#include "virtio_hmm.h"

#include <err.h>
#include <fcntl.h>
#include <stdio.h>

#define PAGE 4096u
#define PAGES 64u

int main(int argc, char **argv)
{
	int node = open(argc > 1 ? argv[1] : "/dev/hmm0", O_RDWR | O_CLOEXEC);
	unsigned char *memory = (unsigned char *)mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
						      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct hmm_migrate call;

	if (node < 0)
		err(1, "cannot open the node");
	if (memory == MAP_FAILED || madvise(memory, PAGES * PAGE, MADV_NOHUGEPAGE) != 0)
		err(1, "mmap");
	/* The last 16 pages were never touched. 8 pages are locked, and one allows no access. */
	memset(memory, 1, 48 * PAGE);
	if (mlock(memory, 8 * PAGE) != 0 || mprotect(memory + 40 * PAGE, PAGE, PROT_NONE) != 0)
		err(1, "cannot prepare the memory");

	memset(&call, 0, sizeof(call));
	call.direction = HMM_TO_DEVICE;
	call.start = (uintptr_t)memory;
	call.end = (uintptr_t)memory + PAGES * PAGE;
	if (ioctl(node, HMM_MIGRATE, &call) != 0)
		err(1, "MIGRATE");
	printf("%llu pages moved; %llu were locked, %llu allowed no access, %llu were holes\n",
	       (unsigned long long)call.pages_moved, (unsigned long long)call.pages_skipped[HMM_SKIP_MLOCKED],
	       (unsigned long long)call.pages_skipped[HMM_SKIP_NO_ACCESS],
	       (unsigned long long)call.pages_skipped[HMM_SKIP_HOLE]);
	return 0;
}
