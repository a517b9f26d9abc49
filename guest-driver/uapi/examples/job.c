/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause */
/*
 * Has the device fill memory and compute its CRC-32C, and waits for the end by poll().
 * Usage: job [/dev/hmmN]
 */
#include "virtio_hmm.h"

#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BYTES (1u << 20)

/* Waits until a job has ended. What is read is the number of jobs that have since the last read. */
static void wait_for_event(int event)
{
	struct pollfd descriptor = { .fd = event, .events = POLLIN, .revents = 0 };
	uint64_t ended;

	while (poll(&descriptor, 1, -1) < 0) {
		if (errno != EINTR)
			err(1, "poll");
	}
	if (read(event, &ended, sizeof(ended)) != sizeof(ended))
		err(1, "read");
}

int main(int argc, char **argv)
{
	int node = open(argc > 1 ? argv[1] : "/dev/hmm0", O_RDWR | O_CLOEXEC);
	int event = eventfd(0, EFD_CLOEXEC);
	unsigned char *memory = (unsigned char *)mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
						      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct hmm_job fill, crc;
	struct hmm_job_wait end;

	if (node < 0)
		err(1, "cannot open the node");
	if (event < 0 || memory == MAP_FAILED)
		err(1, "cannot prepare");

	memset(&fill, 0, sizeof(fill));
	fill.kind = HMM_JOB_FILL;
	fill.arguments[0] = (uintptr_t)memory;
	fill.arguments[1] = BYTES;
	fill.arguments[2] = 0x0706050403020100u;
	/* Submits it and waits. The device faults the pages in. */
	if (hmm_run(node, &fill, &end) != 0)
		err(1, "the fill failed at %#llx", (unsigned long long)end.address);
	if (memory[0] != 0 || memory[BYTES - 1] != 7)
		errx(1, "the memory was not filled");

	memset(&crc, 0, sizeof(crc));
	crc.kind = HMM_JOB_CRC32C;
	crc.flags = HMM_JOB_EVENTFD;
	crc.eventfd = event;
	crc.arguments[0] = (uintptr_t)memory;
	crc.arguments[1] = BYTES;
	if (ioctl(node, HMM_JOB, &crc) != 0)
		err(1, "JOB");
	wait_for_event(event);
	memset(&end, 0, sizeof(end));
	end.id = crc.id;
	if (ioctl(node, HMM_JOB_WAIT, &end) != 0)
		err(1, "JOB_WAIT");
	if (end.state != HMM_JOB_DONE) {
		errno = (int)end.error;
		err(1, "the CRC failed at %#llx", (unsigned long long)end.address);
	}
	printf("CRC-32C %08llx of %llu bytes\n", (unsigned long long)end.result, (unsigned long long)end.amount);
	return 0;
}
