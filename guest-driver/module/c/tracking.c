// SPDX-License-Identifier: GPL-2.0-only
#include <linux/fdtable.h>
#include <linux/fs.h>
#include <linux/leafops.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/sched/task_stack.h>
#include <linux/string.h>
#include <linux/userfaultfd.h>
#include <linux/userfaultfd_k.h>
#include <asm/syscall.h>

#include "tracking.h"

/*
 * Whether writes to the mapping are tracked: by soft-dirty bits since the last "4" in clear_refs, or
 * by write protection of userfaultfd.
 */
bool vhmm_vma_tracks_writes(struct vm_area_struct *vma)
{
	return vhmm_vma_is_scanned(vma) ||
	       (pgtable_supports_soft_dirty() && !(vma->vm_flags & VM_SOFTDIRTY));
}

/* Whether PAGEMAP_SCAN may write-protect pages of the mapping. */
bool vhmm_vma_is_scanned(struct vm_area_struct *vma)
{
	return userfaultfd_wp(vma);
}

bool vhmm_vma_has_userfaultfd(struct vm_area_struct *vma)
{
	return userfaultfd_armed(vma);
}

static int is_userfaultfd(const void *unused, struct file *file, unsigned int fd)
{
	return !strcmp(file->f_path.dentry->d_name.name, "[userfaultfd]");
}

/* Whether a file of the task is a userfaultfd. UFFDIO_MOVE works on the memory of its caller only. */
bool vhmm_task_has_userfaultfd(struct task_struct *task)
{
	bool has;

	task_lock(task);
	has = iterate_fd(task->files, 0, is_userfaultfd, NULL);
	task_unlock(task);
	return has;
}

/* Whether the current task is in the ioctl UFFDIO_MOVE, and does not reclaim there. */
bool vhmm_task_moves_pages(void)
{
	unsigned long args[6];
	struct pt_regs *regs;

	if (current->flags & (PF_KTHREAD | PF_USER_WORKER | PF_MEMALLOC))
		return false;
	regs = task_pt_regs(current);
	if (syscall_get_nr(current, regs) != __NR_ioctl)
		return false;
	syscall_get_arguments(current, regs, args);
	return (unsigned int)args[1] == UFFDIO_MOVE;
}

/* Whether the current task has the mmap lock for writing. A reader's lock does not tell whose it is. */
bool vhmm_task_locked_for_writing(struct mm_struct *mm)
{
#ifdef CONFIG_PREEMPT_RT
	return false;
#else
	/* Bit 0 says that it is held for reading, bit 1 is a hint for those that wait. */
	return (atomic_long_read(&mm->mmap_lock.owner) & ~2UL) == (unsigned long)current;
#endif
}

/*
 * Stores the frames of up to @most pages of @owner that single entries map at or after *@address,
 * and the address up to which it looked. @migrating says that pages are being migrated there. The caller
 * must not let page tables above the last level go; those of the last level go after a grace period.
 * What is found may be gone at once.
 */
unsigned int vhmm_mm_device_pages(struct mm_struct *mm, unsigned long *address, unsigned long end,
				  const struct dev_pagemap *owner, unsigned long *pfns,
				  unsigned int most, bool *migrating)
{
	unsigned int found = 0;

	*migrating = false;
	while (*address < end && found < most) {
		unsigned long next = pmd_addr_end(*address, end);
		pgd_t *pgd = pgd_offset(mm, *address);
		p4d_t *p4d;
		pud_t *pud;
		pmd_t pmd;
		pte_t *pte;

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
		rcu_read_lock();
		pmd = pmdp_get_lockless(pmd_offset(pud, *address));
		if (pmd_none(pmd) || !pmd_present(pmd) || pmd_leaf(pmd) || pmd_bad(pmd)) {
			rcu_read_unlock();
			*address = next;
			continue;
		}
		pte = pte_offset_kernel(&pmd, *address);
		for (; *address < next && found < most; pte++, *address += PAGE_SIZE) {
			pte_t entry = ptep_get_lockless(pte);
			phys_addr_t page;
			softleaf_t leaf;

			if (pte_none(entry) || pte_present(entry))
				continue;
			leaf = softleaf_from_pte(entry);
			*migrating |= softleaf_is_migration(leaf);
			if (!softleaf_is_device_private(leaf))
				continue;
			page = PFN_PHYS(softleaf_to_pfn(leaf));
			if (owner->range.start <= page && page <= owner->range.end)
				pfns[found++] = softleaf_to_pfn(leaf);
		}
		rcu_read_unlock();
		cond_resched();
	}
	return found;
}
