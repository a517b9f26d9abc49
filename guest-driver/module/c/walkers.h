/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Walkers of page tables and of reverse mappings: loops over structures that the kernel exports no
 * function for.
 */
#ifndef VHMM_WALKERS_H
#define VHMM_WALKERS_H

#include <linux/mm_types.h>
#include <linux/types.h>

struct anon_vma;
struct dev_pagemap;

bool vhmm_anon_vma_nth_mapping(struct anon_vma *anon_vma, struct page *page, unsigned int nth,
			       struct mm_struct **mm, unsigned long *start, unsigned long *end);
bool vhmm_vma_is_alone(struct vm_area_struct *vma, unsigned long start, unsigned long end);
unsigned long vhmm_mm_next_populated(struct mm_struct *mm, unsigned long start, unsigned long end);
bool vhmm_mm_has_huge_leaf(struct mm_struct *mm, unsigned long start, unsigned long end,
			   const struct dev_pagemap *owner);

#endif
