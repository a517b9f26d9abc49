/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel does with entries of device pages that are not swapped out: it write-protects them to
 * track writes, and UFFDIO_MOVE moves them.
 */
#ifndef VHMM_TRACKING_H
#define VHMM_TRACKING_H

#include <linux/mm_types.h>
#include <linux/types.h>

struct dev_pagemap;
struct task_struct;

bool vhmm_vma_tracks_writes(struct vm_area_struct *vma);
bool vhmm_vma_is_scanned(struct vm_area_struct *vma);
bool vhmm_vma_has_userfaultfd(struct vm_area_struct *vma);
bool vhmm_task_has_userfaultfd(struct task_struct *task);
bool vhmm_task_moves_pages(void);
bool vhmm_task_locked_for_writing(struct mm_struct *mm);
unsigned int vhmm_mm_device_pages(struct mm_struct *mm, unsigned long *address, unsigned long end,
				  const struct dev_pagemap *owner, unsigned long *pfns,
				  unsigned int most, bool *migrating);

#endif
