// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* A merged page that MADV_FREE gave up is merged with a page that did not. No device takes part. */
#include "find.h"

enum { PAGES = 64 };

static void wait_for(char *at, long kilobytes, const char *what)
{
	for (int round = 0; round < 12000; round++) {
		if (smaps(at, "KSM") >= kilobytes)
			return;
		usleep(10000);
	}
	cannot("KSM did not %s: %ld KiB are merged", what, smaps(at, "KSM"));
}

static char *mergeable(void)
{
	/* With a gap behind it, so that the mappings stay apart. */
	char *at = map_pages(PAGES + 1);

	TRY(mprotect(at + PAGES * PAGE, PAGE, PROT_NONE));
	TRY(madvise(at, PAGES * PAGE, MADV_MERGEABLE));
	return at;
}

int main(void)
{
	char *kept = mergeable(), *first = mergeable(), *second = mergeable();

	write_file("/sys/kernel/mm/ksm/pages_to_scan", "10000");
	write_file("/sys/kernel/mm/ksm/sleep_millisecs", "1");
	write_file("/sys/kernel/mm/ksm/run", "1");
	fill(first, PAGES);
	fill(second, PAGES);
	wait_for(first, PAGES * 4, "merge the pages");
	wait_for(second, PAGES * 4, "merge the pages");
	TRY(munmap(second, PAGES * PAGE));
	TRY(madvise(first, PAGES * PAGE, MADV_FREE));
	fill(kept, PAGES);
	wait_for(kept, PAGES * 4, "merge others with them");
	TRY(munmap(first, PAGES * PAGE));
	TRY(madvise(kept, PAGES * PAGE, MADV_PAGEOUT));
	size_t lost = 0;

	for (size_t page = 0; page < PAGES; page++)
		lost += !is_filled(kept + page * PAGE, page);
	write_file("/sys/kernel/mm/ksm/run", "0");
	if (lost)
		fault("%zu of %d pages lost their contents", lost, PAGES);
	right("all pages have their contents");
}
