/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * On which NUMA nodes the pages of an address space may be, when a task of another one allocates
 * them: with placements by the driver itself, with adopted rules by a page fault.
 */
#ifndef VHMM_PLACEMENT_H
#define VHMM_PLACEMENT_H

#include <linux/mempolicy.h>
#include <linux/mm_types.h>
#include <linux/nodemask.h>
#include <linux/types.h>

struct vhmm_placement {
	/* The nodes that may be used. */
	nodemask_t nodes;
	/* The nodes that take turns; empty if @nid is preferred always. */
	nodemask_t turns;
	int nid;
	unsigned int turn;
};

/* What vhmm_adopt_rules() gave the calling thread, and what it had before. */
struct vhmm_adopted_rules {
	struct mempolicy policy;
	struct mempolicy *own_policy;
	nodemask_t own_mems;
	bool is_adopted;
};

bool vhmm_has_nodes(void);
bool vhmm_mm_is_foreign(const struct mm_struct *mm);
bool vhmm_placement_of(struct mm_struct *mm, struct vm_area_struct *vma,
		       struct vhmm_placement *placement);
struct page *vhmm_placement_alloc(struct vhmm_placement *placement);
struct page *vhmm_placement_alloc_huge(struct vhmm_placement *placement);
void vhmm_adopt_rules(struct mm_struct *mm, struct vhmm_adopted_rules *rules);
void vhmm_restore_rules(struct vhmm_adopted_rules *rules);

#endif
