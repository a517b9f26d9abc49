// SPDX-License-Identifier: GPL-2.0-only
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/leafops.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/rwsem.h>
#include <linux/sched/mm.h>

#include "walkers.h"

/*
 * The n-th mapping that may map the page, as far as the reverse mapping tells; false if there are
 * not so many. The address space comes with a user, or is null if it has no users any more.
 */
bool vhmm_anon_vma_nth_mapping(struct anon_vma *anon_vma, struct page *page, unsigned int nth,
			       struct mm_struct **mm, unsigned long *start, unsigned long *end)
{
	struct folio *folio = page_folio(page);
	const pgoff_t first = folio->index;
	const pgoff_t behind = first + folio_nr_pages(folio);
	bool found = false;
	struct rb_node *node;

	down_read(&anon_vma->root->rwsem);
	for (node = rb_first_cached(&anon_vma->rb_root); node; node = rb_next(node)) {
		struct vm_area_struct *vma = rb_entry(node, struct anon_vma_chain, rb)->vma;
		const pgoff_t vma_first = vma_start_anon_pgoff(vma);
		const pgoff_t vma_behind = vma_first + vma_pages(vma);

		if (vma_behind <= first || vma_first >= behind || nth--)
			continue;
		*mm = mmget_not_zero(vma->vm_mm) ? vma->vm_mm : NULL;
		*start = vma->vm_start + ((max(first, vma_first) - vma_first) << PAGE_SHIFT);
		*end = vma->vm_start + ((min(behind, vma_behind) - vma_first) << PAGE_SHIFT);
		found = true;
		break;
	}
	up_read(&anon_vma->root->rwsem);
	return found;
}

/*
 * The first PMD entry at or after *@address that is not empty, and its address; NULL if there is
 * none before @end. Empty upper levels are skipped as a whole. Looks at *@budget entries at most,
 * and then returns NULL with *@address before @end.
 */
static pmd_t *next_pmd(struct mm_struct *mm, unsigned long *address, unsigned long end,
		       unsigned long *budget)
{
	while (*address < end && *budget) {
		pgd_t *pgd = pgd_offset(mm, *address);
		p4d_t *p4d;
		pud_t *pud;
		pmd_t *pmd;

		--*budget;
		if (!pgd_present(*pgd)) {
			*address = pgd_addr_end(*address, end);
			continue;
		}
		p4d = p4d_offset(pgd, *address);
		if (!p4d_present(*p4d)) {
			*address = p4d_addr_end(*address, end);
			continue;
		}
		pud = pud_offset(p4d, *address);
		if (!pud_present(*pud) || pud_leaf(*pud)) {
			*address = pud_addr_end(*address, end);
			continue;
		}
		pmd = pmd_offset(pud, *address);
		if (!pmd_none(pmdp_get_lockless(pmd)))
			return pmd;
		*address = pmd_addr_end(*address, end);
	}
	return NULL;
}

/*
 * The first address in the range that page tables may map, to within a PMD, or @end. If so many
 * entries are empty that looking at all takes long, an address before which there is none. The
 * caller must not let page tables go, as below.
 */
unsigned long vhmm_mm_next_populated(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	unsigned long address = start, budget = 1 << 14;

	next_pmd(mm, &address, end, &budget);
	return address;
}

/*
 * Whether the page tables have, in the place of a huge page that lies wholly within the range, a
 * device page of @owner or a page that is being migrated. The caller must not let page tables go: it
 * has the mmap lock, the lock of the mapping, or that of the reverse mapping. The page itself may be
 * free by now, so it is not asked.
 */
bool vhmm_mm_has_huge_leaf(struct mm_struct *mm, unsigned long start, unsigned long end,
			   const struct dev_pagemap *owner)
{
	unsigned long address, budget = ULONG_MAX;

	if (start > ULONG_MAX - PMD_SIZE)
		return false;
	end = ALIGN_DOWN(end, PMD_SIZE);
	for (address = ALIGN(start, PMD_SIZE); address < end; address += PMD_SIZE) {
		pmd_t *entry = next_pmd(mm, &address, end, &budget);
		phys_addr_t page;
		softleaf_t leaf;
		pmd_t pmd;

		if (!entry)
			return false;
		pmd = pmdp_get_lockless(entry);
		if (pmd_none(pmd) || pmd_present(pmd))
			continue;
		leaf = softleaf_from_pmd(pmd);
		if (softleaf_is_migration(leaf))
			return true;
		if (!softleaf_is_device_private(leaf))
			continue;
		page = PFN_PHYS(softleaf_to_pfn(leaf));
		if (owner->range.start <= page && page <= owner->range.end)
			return true;
	}
	return false;
}
