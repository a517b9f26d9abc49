/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause */
/*
 * Moves 16 MiB of this process to the device and back, and says where they are in between.
 * Usage: migrate [/dev/hmmN]
 */
#include "virtio_hmm.h"

#include <err.h>
#include <fcntl.h>
#include <stdio.h>

#define BYTES (16u << 20)

static void move(int node, const unsigned char *memory, uint32_t direction)
{
	struct hmm_migrate call;
	uint64_t next = (uintptr_t)memory;

	/* A signal may end the call before the end of the range; the rest begins at `next`. */
	do {
		memset(&call, 0, sizeof(call));
		call.direction = direction;
		call.start = next;
		call.end = (uintptr_t)memory + BYTES;
		if (ioctl(node, HMM_MIGRATE, &call) != 0 && errno != EINTR)
			err(1, "MIGRATE");
		next = call.next;
	} while (next != call.end);
}

static void print_residency(int node, const unsigned char *memory)
{
	struct hmm_residency call;

	memset(&call, 0, sizeof(call));
	call.start = (uintptr_t)memory;
	call.end = (uintptr_t)memory + BYTES;
	if (ioctl(node, HMM_RESIDENCY, &call) != 0)
		err(1, "RESIDENCY");
	printf("%llu pages on the device, %llu in system memory\n", (unsigned long long)call.device_pages,
	       (unsigned long long)call.system_pages);
}

int main(int argc, char **argv)
{
	int node = open(argc > 1 ? argv[1] : "/dev/hmm0", O_RDWR | O_CLOEXEC);
	unsigned char *memory = (unsigned char *)mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
						      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (node < 0)
		err(1, "cannot open the node");
	if (memory == MAP_FAILED)
		err(1, "mmap");
	memset(memory, 0x5a, BYTES);
	move(node, memory, HMM_TO_DEVICE);
	print_residency(node, memory);
	move(node, memory, HMM_TO_SYSTEM);
	print_residency(node, memory);
	for (size_t at = 0; at < BYTES; at++) {
		if (memory[at] != 0x5a)
			errx(1, "byte %zu is wrong", at);
	}
	return 0;
}
