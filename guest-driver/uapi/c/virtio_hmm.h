/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause */
/*
 * The ioctls of /dev/hmmN for C and C++, and functions that call a function of the program on the device. docs/uapi.md
 * says what the ioctls do; a host test compares the structures with those of the Rust crate.
 */
#ifndef VIRTIO_HMM_H
#define VIRTIO_HMM_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define HMM_IOCTL_TYPE 0xbd

enum hmm_job_kind {
	HMM_JOB_FILL = 1,
	HMM_JOB_COPY = 2,
	HMM_JOB_CRC32C = 3,
	HMM_JOB_ATOMIC_ADD = 4,
	HMM_JOB_WALK = 5,
	HMM_JOB_PROBE = 6,
	HMM_JOB_PROGRAM = 7,
};

#define HMM_JOB_NO_FAULT (1u << 0)
#define HMM_JOB_WRITE (1u << 1)
#define HMM_JOB_EVENTFD (1u << 2)
#define HMM_JOB_WAIT_CANCEL (1u << 0)
#define HMM_WAIT_FOR_EVER UINT32_MAX

enum hmm_job_state {
	HMM_JOB_RUNNING = 0,
	HMM_JOB_DONE = 1,
	HMM_JOB_CANCELLED = 2,
	HMM_JOB_FAILED = 3,
};

struct hmm_job {
	uint32_t flags;
	uint32_t kind;
	int32_t pid;
	int32_t eventfd;
	uint64_t arguments[12];
	uint64_t id;
};

struct hmm_job_wait {
	uint32_t flags;
	uint32_t timeout_ms;
	uint64_t id;
	uint32_t state;
	uint32_t error;
	uint32_t status;
	uint32_t reserved;
	uint64_t result;
	uint64_t address;
	uint64_t program_counter;
	uint64_t amount;
	uint64_t device_ns;
	uint64_t faults;
};

struct hmm_info {
	uint32_t flags;
	uint32_t version;
	uint64_t features;
	uint64_t memory_bytes;
	uint64_t resident_bytes;
	uint32_t page_bytes;
	uint32_t block_bytes;
	uint32_t max_batch_pages;
	uint32_t bulk_queues;
	uint64_t generation;
	uint8_t uuid[16];
};

#define HMM_TO_DEVICE 1
#define HMM_TO_SYSTEM 2
#define HMM_MIGRATE_POPULATE (1u << 0)
#define HMM_MIGRATE_MLOCKED (1u << 1)

struct hmm_migrate {
	uint32_t flags;
	uint32_t direction;
	int32_t pid;
	uint32_t reserved;
	uint64_t start;
	uint64_t end;
	uint64_t next;
	uint64_t pages_moved;
	uint64_t pages_skipped[24];
	uint64_t batches;
	uint64_t doorbells;
};

struct hmm_residency {
	uint32_t flags;
	int32_t pid;
	uint64_t start;
	uint64_t end;
	uint64_t map;
	uint64_t system_pages;
	uint64_t device_pages;
	uint64_t other_pages;
};

struct hmm_stats {
	uint32_t flags;
	uint32_t reserved;
	uint64_t bytes_to_device;
	uint64_t bytes_to_system;
	uint64_t bytes_by_fault;
	uint64_t bytes_by_eviction;
	uint64_t resident_bytes;
	uint64_t peak_resident_bytes;
	uint64_t cpu_faults;
	uint64_t cpu_faults_failed;
	uint64_t batches;
	uint64_t doorbells;
	uint64_t copy_errors;
	uint64_t timeouts;
	uint64_t protocol_errors;
	uint64_t pages_skipped[24];
};

/* Why a page did not move: places in the arrays pages_skipped. */
enum hmm_skip_reason {
	HMM_SKIP_UNMAPPED = 0,
	HMM_SKIP_HOLE = 1,
	HMM_SKIP_NO_ACCESS = 2,
	HMM_SKIP_SPECIAL = 3,
	HMM_SKIP_HUGETLB = 4,
	HMM_SKIP_FILE = 5,
	HMM_SKIP_MLOCKED = 6,
	HMM_SKIP_KSM = 7,
	HMM_SKIP_ALREADY = 8,
	HMM_SKIP_OTHER_DEVICE = 9,
	HMM_SKIP_SWAPPED = 10,
	HMM_SKIP_PINNED = 11,
	HMM_SKIP_BUSY = 12,
	HMM_SKIP_LOST_RACE = 13,
	HMM_SKIP_NO_DEVICE_MEMORY = 14,
	HMM_SKIP_NO_SYSTEM_MEMORY = 15,
	HMM_SKIP_COPY_FAILED = 16,
	HMM_SKIP_LOST = 17,
	HMM_SKIP_OVER_LIMIT = 18,
};

#define HMM_ADVISE_SIDE (1u << 0)
#define HMM_ADVISE_KEEP (1u << 1)
#define HMM_ADVISE_WINDOW (1u << 2)
#define HMM_ADVISE_TOUCHES (1u << 3)
#define HMM_NEVER_TOUCHES UINT32_MAX
#define HMM_SIDE_NONE 0
#define HMM_SIDE_DEVICE 1
#define HMM_SIDE_SYSTEM 2

struct hmm_advise {
	uint32_t flags;
	int32_t pid;
	uint64_t start;
	uint64_t end;
	uint32_t side;
	uint32_t keep;
	uint32_t window_least;
	uint32_t window_most;
	uint32_t touches;
	uint32_t reserved;
};

struct hmm_prefetch {
	uint32_t flags;
	uint32_t direction;
	int32_t pid;
	uint32_t reserved;
	uint64_t start;
	uint64_t end;
	uint64_t id;
};

#define HMM_WAIT_CANCEL (1u << 0)

enum hmm_prefetch_state {
	HMM_PREFETCH_RUNNING = 0,
	HMM_PREFETCH_DONE = 1,
	HMM_PREFETCH_CANCELLED = 2,
	HMM_PREFETCH_FAILED = 3,
};

struct hmm_wait {
	uint32_t flags;
	uint32_t timeout_ms;
	uint64_t id;
	uint32_t state;
	uint32_t error;
	uint64_t next;
	uint64_t pages_moved;
	uint64_t pages_skipped[24];
};

struct hmm_evict {
	uint32_t flags;
	int32_t pid;
	uint64_t start;
	uint64_t end;
	uint64_t bytes;
	uint64_t bytes_evicted;
	uint64_t pages_skipped[24];
};

#define HMM_LIMIT_SET (1u << 0)

struct hmm_limit {
	uint32_t flags;
	int32_t pid;
	uint64_t limit_bytes;
	uint64_t resident_bytes;
};

#define HMM_INFO _IOWR(HMM_IOCTL_TYPE, 0, struct hmm_info)
#define HMM_MIGRATE _IOWR(HMM_IOCTL_TYPE, 1, struct hmm_migrate)
#define HMM_RESIDENCY _IOWR(HMM_IOCTL_TYPE, 2, struct hmm_residency)
#define HMM_STATS _IOWR(HMM_IOCTL_TYPE, 3, struct hmm_stats)
#define HMM_ADVISE _IOWR(HMM_IOCTL_TYPE, 4, struct hmm_advise)
#define HMM_PREFETCH _IOWR(HMM_IOCTL_TYPE, 5, struct hmm_prefetch)
#define HMM_WAIT _IOWR(HMM_IOCTL_TYPE, 6, struct hmm_wait)
#define HMM_EVICT _IOWR(HMM_IOCTL_TYPE, 7, struct hmm_evict)
#define HMM_LIMIT _IOWR(HMM_IOCTL_TYPE, 8, struct hmm_limit)
#define HMM_JOB _IOWR(HMM_IOCTL_TYPE, 9, struct hmm_job)
#define HMM_JOB_WAIT _IOWR(HMM_IOCTL_TYPE, 10, struct hmm_job_wait)

/* Code for the device, which build.sh puts into the program. It is called as this address. */
#define HMM_DEVICE_FUNCTION(name) extern const unsigned char hmm_device_##name[]

/* A call of a function on the device. */
struct hmm_call {
	const unsigned char *function;
	/* How many harts run it. Each gets its number as the sixth argument. 0 is one. */
	unsigned int harts;
	/* Bytes of stack of each hart, a multiple of 16. 0 is 64 KiB. */
	uint64_t stack_bytes;
	/* Milliseconds at most. 0 is the device's own limit. */
	uint64_t milliseconds;
	/* Numbers, or addresses of the process. */
	uint64_t arguments[5];
};

/* Submits a job, and waits for its end. Returns 0 if the job was done, else -1 with errno; `end` tells more. */
static inline int hmm_run(int node, struct hmm_job *job, struct hmm_job_wait *end)
{
	memset(end, 0, sizeof(*end));
	if (ioctl(node, HMM_JOB, job) != 0)
		return -1;
	end->id = job->id;
	end->timeout_ms = HMM_WAIT_FOR_EVER;
	while (ioctl(node, HMM_JOB_WAIT, end) != 0) {
		if (errno != EINTR)
			return -1;
	}
	if (end->state != HMM_JOB_DONE) {
		errno = (int)end->error;
		return -1;
	}
	return 0;
}

/* Calls a function on the device, with the same pointers that the CPU would give it. Its value is `end->result`. */
static inline int hmm_call(int node, const struct hmm_call *call, struct hmm_job_wait *end)
{
	const uint64_t harts = call->harts ? call->harts : 1;
	const uint64_t bytes = call->stack_bytes ? call->stack_bytes : 64 << 10;
	struct hmm_job job;
	void *stacks;
	int result, saved;

	memset(end, 0, sizeof(*end));
	if (bytes % 16 != 0 || bytes > SIZE_MAX / harts) {
		errno = EINVAL;
		return -1;
	}
	stacks = mmap(NULL, harts * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stacks == MAP_FAILED)
		return -1;
	memset(&job, 0, sizeof(job));
	job.kind = HMM_JOB_PROGRAM;
	job.arguments[0] = (uint64_t)(uintptr_t)call->function;
	job.arguments[1] = (uint64_t)(uintptr_t)stacks + harts * bytes;
	job.arguments[2] = bytes;
	job.arguments[3] = harts;
	job.arguments[5] = call->milliseconds;
	memcpy(&job.arguments[6], call->arguments, sizeof(call->arguments));
	result = hmm_run(node, &job, end);
	saved = errno;
	munmap(stacks, harts * bytes);
	errno = saved;
	return result;
}

#endif
