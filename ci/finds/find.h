/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What the reproducers share. Each is one program for a machine with the kernel's own lib/test_hmm.ko, run as root. Its exit code: 0 the
 * kernel is right, 1 the fault shows, 4 it cannot be tried here. The last line that it prints says what was seen.
 */
#ifndef FIND_H
#define FIND_H

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lib/test_hmm_uapi.h>

#define PAGE 4096UL
#define HUGE (512 * PAGE)

/* Bits of an entry of pagemap. */
#define PM_SOFT_DIRTY (1ULL << 55)
#define PM_UFFD_WP (1ULL << 57)

__attribute__((noreturn, format(printf, 2, 3))) static inline void end(int code, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	putchar('\n');
	fflush(stdout);
	_exit(code);
}

/* How a reproducer ends. */
#define right(...) end(0, __VA_ARGS__)
#define fault(...) end(1, __VA_ARGS__)
#define cannot(...) end(4, __VA_ARGS__)

/* A call that has to work for anything to be said about the kernel. */
#define TRY(call) ({ \
	__typeof__(call) _result = (call); \
	if ((intptr_t)_result == -1) \
		cannot("%s: %s", #call, strerror(errno)); \
	_result; \
})

static inline void write_file(const char *path, const char *text)
{
	int fd = TRY(open(path, O_WRONLY | O_CLOEXEC));

	TRY(write(fd, text, strlen(text)));
	close(fd);
}

/* Memory of single pages. */
static inline char *map_pages(size_t pages)
{
	char *at = TRY(mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	TRY(madvise(at, pages * PAGE, MADV_NOHUGEPAGE));
	return at;
}

/* An aligned range for one huge page, in a mapping of its own. */
static inline char *map_huge(void)
{
	char *at = TRY(mmap(NULL, 3 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	at = (char *)(((uintptr_t)at + HUGE - 1) & ~(HUGE - 1));
	TRY(mmap(at, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	TRY(madvise(at, HUGE, MADV_HUGEPAGE));
	return at;
}

/* A number in the part of smaps for the mapping at an address, in KiB. */
static inline long smaps(const void *at, const char *name)
{
	char line[512], begin[32];
	int is_there = 0;
	long value = -1;
	FILE *file = fopen("/proc/self/smaps", "re");

	if (!file)
		cannot("cannot open smaps: %s", strerror(errno));
	snprintf(begin, sizeof(begin), "%lx-", (unsigned long)at);
	while (fgets(line, sizeof(line), file)) {
		char *colon = strchr(line, ':');

		if (strchr(line, '-') && strchr(line, '-') < line + 17)
			is_there = !strncmp(line, begin, strlen(begin));
		else if (is_there && colon && (size_t)(colon - line) == strlen(name) &&
			 !strncmp(line, name, strlen(name)))
			value = atol(colon + 1);
	}
	fclose(file);
	if (value < 0)
		cannot("smaps has no %s", name);
	return value;
}

/* Every page gets contents of its own. */
static inline void fill(char *at, size_t pages)
{
	for (size_t page = 0; page < pages; page++)
		for (size_t word = 0; word < PAGE / 8; word += 64)
			*(uint64_t *)(at + page * PAGE + word * 8) = (page + 1) * 0x100000 + word;
}

static inline int is_filled(const char *at, size_t page)
{
	for (size_t word = 0; word < PAGE / 8; word += 64)
		if (*(const uint64_t *)(at + word * 8) != (page + 1) * 0x100000 + word)
			return 0;
	return 1;
}

/* One huge page, filled. */
static inline char *filled_huge(void)
{
	char *at = map_huge();

	fill(at, 512);
	if (smaps(at, "AnonHugePages") != HUGE / 1024)
		cannot("the kernel gave no huge page");
	return at;
}

static inline int device(void)
{
	int fd = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		cannot("cannot open /dev/hmm_dmirror0: %s; load test_hmm", strerror(errno));
	return fd;
}

static inline int command(int fd, unsigned long request, const void *at, size_t pages, void *buffer)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)at,
		.ptr = (uintptr_t)buffer,
		.npages = pages,
	};
	int result;

	do
		result = ioctl(fd, request, &cmd);
	while (result < 0 && errno == EINTR);
	return result;
}

/* What the driver sees at each page: HMM_DMIRROR_PROT_*. */
static inline void snapshot(int fd, const char *at, size_t pages, unsigned char *seen)
{
	TRY(command(fd, HMM_DMIRROR_SNAPSHOT, at, pages, seen));
}

static inline size_t on_device(int fd, const char *at, size_t pages, int is_huge)
{
	unsigned char seen[512];
	size_t count = 0;

	snapshot(fd, at, pages, seen);
	for (size_t page = 0; page < pages; page++)
		count += seen[page] != HMM_DMIRROR_PROT_ERROR &&
			 (seen[page] & HMM_DMIRROR_PROT_DEV_PRIVATE_REMOTE) == HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL &&
			 (!is_huge || seen[page] & HMM_DMIRROR_PROT_PMD);
	return count;
}

/* Moves all pages, up to 512. A page that is in a queue of the kernel's or is locked at the moment takes another try. */
static inline void to_device(int fd, char *at, size_t pages)
{
	char *copy = malloc(pages * PAGE);

	for (int round = 0; round < 200 && on_device(fd, at, pages, 0) < pages; round++) {
		if (round)
			usleep(10000);
		/* ENOENT: some pages stayed. */
		if (command(fd, HMM_DMIRROR_MIGRATE_TO_DEV, at, pages, copy) && errno != ENOENT)
			cannot("cannot migrate to the device: %s", strerror(errno));
	}
	free(copy);
	if (on_device(fd, at, pages, 0) < pages)
		cannot("%zu of %zu pages are on the device", on_device(fd, at, pages, 0), pages);
}

static inline void huge_to_device(int fd, char *at)
{
	to_device(fd, at, 512);
	if (on_device(fd, at, 512, 1) != 512)
		cannot("the huge page was split on its way to the device");
}

/* How many pages have a bit in pagemap. */
static inline size_t with_bit(const char *at, size_t pages, uint64_t bit)
{
	uint64_t entry;
	size_t count = 0;
	int fd = TRY(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));

	for (size_t page = 0; page < pages; page++) {
		if (pread(fd, &entry, 8, ((uintptr_t)at / PAGE + page) * 8) != 8)
			cannot("cannot read pagemap: %s", strerror(errno));
		count += !!(entry & bit);
	}
	close(fd);
	return count;
}

static inline void clear_soft_dirty(void)
{
	volatile char *probe = map_pages(1);

	write_file("/proc/self/clear_refs", "4");
	*probe = 1;
	if (with_bit((char *)probe, 1, PM_SOFT_DIRTY) != 1)
		cannot("this kernel does not track soft-dirty pages");
}

/* userfaultfd, with memory registered for one mode. */
static inline int uffd_open(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		cannot("userfaultfd: %s", strerror(errno));
	if (ioctl(fd, UFFDIO_API, &api))
		cannot("this kernel's userfaultfd lacks a feature: %s", strerror(errno));
	return fd;
}

static inline void uffd_register(int fd, const char *at, size_t length, uint64_t mode)
{
	struct uffdio_register range = {
		.range = { .start = (uintptr_t)at, .len = length },
		.mode = mode,
	};

	TRY(ioctl(fd, UFFDIO_REGISTER, &range));
}

static inline void uffd_protect(int fd, const char *at, size_t length)
{
	struct uffdio_writeprotect range = {
		.range = { .start = (uintptr_t)at, .len = length },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	TRY(ioctl(fd, UFFDIO_WRITEPROTECT, &range));
}

/* How many pages PAGEMAP_SCAN calls written; it protects those again. */
static inline size_t scan_written(const char *at, size_t pages)
{
	static struct page_region regions[1024];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PM_SCAN_CHECK_WPASYNC | PM_SCAN_WP_MATCHING,
		.start = (uintptr_t)at,
		.end = (uintptr_t)at + pages * PAGE,
		.vec = (uintptr_t)regions,
		.vec_len = 1024,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	int fd = TRY(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
	long count = TRY(ioctl(fd, PAGEMAP_SCAN, &arg));
	size_t written = 0;

	close(fd);
	for (long region = 0; region < count; region++)
		written += (regions[region].end - regions[region].start) / PAGE;
	return written;
}

/* The kernel's log from now on. */
static inline int log_open(void)
{
	int fd = TRY(open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC));

	TRY(lseek(fd, 0, SEEK_END));
	return fd;
}

/* Whether a new line has one of these texts, which end with NULL. */
static inline int log_has(int fd, const char *const *texts)
{
	char line[8192];
	ssize_t length;

	for (;;) {
		length = read(fd, line, sizeof(line) - 1);
		if (length < 0 && errno == EPIPE)
			continue;
		if (length <= 0)
			return 0;
		line[length] = 0;
		for (const char *const *text = texts; *text; text++)
			if (strstr(line, *text)) {
				char *message = strchr(line, ';');

				printf("%s", message ? message + 1 : line);
				return 1;
			}
	}
}

/* Kernels say a VM_WARN_ON_ONCE() once; debugfs has a file that forgets that. */
static inline void forget_warnings(void)
{
	int fd = open("/sys/kernel/debug/clear_warn_once", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	TRY(write(fd, "1", 1));
	close(fd);
}

/* A child that shares the memory until it is killed. */
static inline pid_t sharing_child(void)
{
	pid_t child = TRY(fork());

	if (!child)
		for (;;)
			pause();
	return child;
}

static inline void kill_child(pid_t child)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

#endif
