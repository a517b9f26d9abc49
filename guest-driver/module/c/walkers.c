// SPDX-License-Identifier: GPL-2.0-only
#include <linux/memremap.h>
#include <linux/interval_tree_generic.h>
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

static pgoff_t first_pgoff(struct anon_vma_chain *chain)
{
	return vma_start_anon_pgoff(chain->vma);
}

static pgoff_t last_pgoff(struct anon_vma_chain *chain)
{
	return vma_last_anon_pgoff(chain->vma);
}

/* As mm/interval_tree.c has it, for lookups only. */
INTERVAL_TREE_DEFINE(struct anon_vma_chain, rb, pgoff_t, rb_subtree_last, first_pgoff, last_pgoff,
		     static inline, anon_chain_tree)

/*
 * Whether the reverse mapping leads from a page of any mapping to an address in [@start, @end) of
 * @vma only if the page is of @vma: no other mapping has the same page offsets. One has them if
 * mremap() took pages away from there. The caller has the mmap lock. The answer holds as long as
 * that, if no other process shares the anon_vma.
 */
bool vhmm_vma_is_alone(struct vm_area_struct *vma, unsigned long start, unsigned long end)
{
	struct anon_vma *anon_vma = READ_ONCE(vma->anon_vma);
	const pgoff_t offset = vma_start_anon_pgoff(vma);
	struct anon_vma_chain *chain;
	pgoff_t first, last;

	if (!anon_vma || start >= end)
		return true;
	first = offset + ((start - vma->vm_start) >> PAGE_SHIFT);
	last = offset + ((end - 1 - vma->vm_start) >> PAGE_SHIFT);
	down_read(&anon_vma->root->rwsem);
	chain = anon_chain_tree_iter_first(&anon_vma->rb_root, first, last);
	while (chain && chain->vma == vma)
		chain = anon_chain_tree_iter_next(chain, first, last);
	up_read(&anon_vma->root->rwsem);
	return !chain;
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
