// SPDX-License-Identifier: GPL-2.0-only
#include <linux/dax.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/huge_mm.h>
#include <linux/hugetlb_inline.h>
#include <linux/leafops.h>
#include <linux/memcontrol.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/ratelimit.h>
#include <linux/rmap.h>
#include <linux/rwsem.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/userfaultfd_k.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include "helpers.h"

unsigned long vhmm_page_to_pfn(const struct page *page)
{
	return page_to_pfn(page);
}

struct page *vhmm_pfn_to_page(unsigned long pfn)
{
	return pfn_to_page(pfn);
}

unsigned long vhmm_buffer_to_pfn(const void *buffer)
{
	return PHYS_PFN(virt_to_phys((void *)buffer));
}

struct dev_pagemap *vhmm_page_pgmap(const struct page *page)
{
	return page_pgmap(page);
}

/* For a page that may be free, whose pagemap must not be asked. */
bool vhmm_page_is_of_a_device(const struct page *page)
{
	return page_zonenum(page) == ZONE_DEVICE;
}

bool vhmm_page_is_zero(const struct page *page)
{
	return is_zero_pfn(page_to_pfn(page));
}

bool vhmm_page_is_anon(struct page *page)
{
	return folio_test_anon(page_folio(page));
}

bool vhmm_page_is_ksm(struct page *page)
{
	return folio_test_ksm(page_folio(page));
}

int vhmm_page_references(struct page *page)
{
	return folio_ref_count(page_folio(page));
}

int vhmm_page_mappings(struct page *page)
{
	return folio_mapcount(page_folio(page)) + folio_test_swapcache(page_folio(page));
}

void vhmm_page_put(struct page *page)
{
	put_page(page);
}

void vhmm_page_lock(struct page *page)
{
	lock_page(page);
}

void vhmm_page_unlock(struct page *page)
{
	unlock_page(page);
}

struct page *vhmm_page_alloc_for(struct vm_area_struct *vma, unsigned long address)
{
	return alloc_page_vma(GFP_HIGHUSER_MOVABLE, vma, address);
}

struct page *vhmm_page_alloc(void)
{
	return alloc_page(GFP_HIGHUSER_MOVABLE);
}

unsigned long vhmm_pages_alloc_bulk(unsigned long count, struct page **pages)
{
	return alloc_pages_bulk(GFP_HIGHUSER_MOVABLE, count, pages);
}

struct page *vhmm_huge_page_alloc_for(struct vm_area_struct *vma, unsigned long address)
{
	return (struct page *)vma_alloc_folio(GFP_TRANSHUGE | __GFP_NORETRY, HPAGE_PMD_ORDER,
					       vma, address);
}

unsigned int vhmm_page_order(struct page *page)
{
	return folio_order(page_folio(page));
}

bool vhmm_page_is_tail(struct page *page)
{
	return PageTail(page);
}

void vhmm_device_page_init(struct page *page, struct dev_pagemap *pgmap, unsigned int order)
{
	zone_device_folio_init((struct folio *)page, pgmap, order);
}

/* The page's number in the numbering that its reverse mapping has. */
unsigned long vhmm_page_offset(struct page *page)
{
	return page_pgoff(page_folio(page), page);
}

unsigned long vhmm_page_mapping_bits(struct page *page)
{
	return (unsigned long)READ_ONCE(page_folio(page)->mapping);
}

bool vhmm_page_is_mapped(struct page *page)
{
	return folio_mapped(page_folio(page));
}

bool vhmm_page_is_charged(struct page *page)
{
	return mem_cgroup_disabled() || folio_memcg_charged(page_folio(page));
}

bool vhmm_anon_vma_try_get(struct anon_vma *anon_vma)
{
	return atomic_inc_not_zero(&anon_vma->refcount);
}

bool vhmm_anon_vma_put_is_last(struct anon_vma *anon_vma)
{
	return atomic_dec_and_test(&anon_vma->refcount);
}

struct anon_vma *vhmm_anon_vma_root(struct anon_vma *anon_vma)
{
	return anon_vma->root;
}

void vhmm_anon_vma_wait_for_lock_holders(struct anon_vma *anon_vma)
{
	might_sleep();
	if (rwsem_is_locked(&anon_vma->root->rwsem)) {
		down_write(&anon_vma->root->rwsem);
		up_write(&anon_vma->root->rwsem);
	}
}

bool vhmm_vma_is_anonymous(struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma);
}

bool vhmm_vma_is_mlocked(struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_LOCKED;
}

bool vhmm_vma_is_mergeable(struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_MERGEABLE;
}

bool vhmm_vma_wants_huge_pages(struct vm_area_struct *vma)
{
	return !(vma->vm_flags & VM_NOHUGEPAGE);
}

/*
 * Whether no page of the mapping can be mapped by another process: this one did not inherit the mapping,
 * and all processes that were forked from it since the mapping got its first page have ended.
 */
bool vhmm_vma_is_exclusive(struct vm_area_struct *vma)
{
	struct anon_vma *anon_vma = vma->anon_vma;

	if (!anon_vma)
		return true;
	return list_is_singular(&vma->anon_vma_chain) && anon_vma->root == anon_vma &&
	       READ_ONCE(anon_vma->num_children) <= 1;
}

bool vhmm_vma_has_memory_policy(struct vm_area_struct *vma)
{
#ifdef CONFIG_NUMA
	return vma->vm_policy;
#else
	return false;
#endif
}

bool vhmm_task_has_memory_policy(void)
{
#ifdef CONFIG_NUMA
	return current->mempolicy;
#else
	return false;
#endif
}

bool vhmm_vma_may_have_markers(struct vm_area_struct *vma)
{
	return (vma->vm_flags & VM_MAYBE_GUARD) || userfaultfd_armed(vma);
}

bool vhmm_vma_is_dax(struct vm_area_struct *vma)
{
	return vma_is_dax(vma);
}

bool vhmm_vma_is_hugetlb(struct vm_area_struct *vma)
{
	return is_vm_hugetlb_page(vma);
}

unsigned long vhmm_mm_task_size(struct mm_struct *mm)
{
	return mm->task_size;
}

bool vhmm_mm_has_swapped_pages(struct mm_struct *mm)
{
	return get_mm_counter_sum(mm, MM_SWAPENTS) > 0;
}

long vhmm_mm_add_pinned(struct mm_struct *mm, long pages)
{
	return atomic64_add_return(pages, &mm->pinned_vm);
}

bool vhmm_mm_has_notifiers(struct mm_struct *mm)
{
	return mm_has_notifiers(mm);
}

int vhmm_mmap_read_lock_killable(struct mm_struct *mm)
{
	return mmap_read_lock_killable(mm);
}

int vhmm_mmap_write_lock_killable(struct mm_struct *mm)
{
	return mmap_write_lock_killable(mm);
}

bool vhmm_mmap_write_trylock(struct mm_struct *mm)
{
	if (!down_write_trylock(&mm->mmap_lock))
		return false;
	mm_lock_seqcount_begin(mm);
	return true;
}

void vhmm_mmap_write_unlock(struct mm_struct *mm)
{
	mmap_write_unlock(mm);
}

void vhmm_vma_start_write(struct vm_area_struct *vma)
{
	vma_start_write(vma);
}

bool vhmm_mmap_lock_is_contended(struct mm_struct *mm)
{
	return mmap_lock_is_contended(mm);
}

bool vhmm_notifier_range_may_sleep(const struct mmu_notifier_range *range)
{
	return mmu_notifier_range_blockable(range);
}

struct page *vhmm_page_make_exclusive(struct mm_struct *mm, unsigned long address, void *owner)
{
	struct folio *folio;

	return make_device_exclusive(mm, address, owner, &folio);
}

void vhmm_notifier_set_seq(struct mmu_interval_notifier *notifier, unsigned long seq)
{
	mmu_interval_set_seq(notifier, seq);
}

bool vhmm_notifier_has_changed(struct mmu_interval_notifier *notifier, unsigned long seq)
{
	return mmu_interval_read_retry(notifier, seq);
}

/* What the task itself clears until the end is part of its migration. */
unsigned int vhmm_own_clears_begin(void)
{
	return memalloc_nofs_save();
}

void vhmm_own_clears_end(unsigned int flags)
{
	memalloc_nofs_restore(flags);
}

bool vhmm_task_makes_own_clears(void)
{
	return current->flags & PF_MEMALLOC_NOFS;
}

bool vhmm_task_reclaims(void)
{
	return current->flags & (PF_MEMALLOC | PF_KCOMPACTD);
}

bool vhmm_task_uses(const struct mm_struct *mm)
{
	return current->mm == mm;
}

bool vhmm_task_is_of_kernel(void)
{
	return current->flags & PF_KTHREAD;
}

/* Whether the task is about to end, also where it does so by itself and a signal came before. */
bool vhmm_task_is_dying(void)
{
	return fatal_signal_pending(current) || (current->signal->flags & SIGNAL_GROUP_EXIT);
}

bool vhmm_signal_waits(void)
{
	return task_sigpending(current);
}

struct workqueue_struct *vhmm_workqueue_alloc(const char *name, unsigned int flags)
{
	return alloc_workqueue("%s", WQ_UNBOUND | flags, 0, name);
}

unsigned int vhmm_online_cpus(void)
{
	return num_online_cpus();
}

/* Whether the device accesses system memory itself, so that a mapping holds nothing and is never undone. */
bool vhmm_dma_can_share(struct device *device)
{
	return !dma_need_unmap(device) && !dma_addressing_limited(device);
}

dma_addr_t vhmm_dma_share(struct device *device, unsigned long pfn, size_t len)
{
	return dma_map_phys(device, PFN_PHYS(pfn), len, DMA_BIDIRECTIONAL,
			    DMA_ATTR_REQUIRE_COHERENT);
}

bool vhmm_dma_mapping_failed(struct device *device, dma_addr_t address)
{
	return dma_mapping_error(device, address);
}

bool vhmm_may_warn(void)
{
	static DEFINE_RATELIMIT_STATE(limit, DEFAULT_RATELIMIT_INTERVAL, DEFAULT_RATELIMIT_BURST);

	return __ratelimit(&limit);
}

bool vhmm_may_log_error(void)
{
	static DEFINE_RATELIMIT_STATE(limit, DEFAULT_RATELIMIT_INTERVAL, DEFAULT_RATELIMIT_BURST);

	return __ratelimit(&limit);
}

bool vhmm_virtio_has_feature(const struct virtio_device *vdev, unsigned int bit)
{
	return virtio_has_feature(vdev, bit);
}

void vhmm_virtio_clear_feature(struct virtio_device *vdev, unsigned int bit)
{
	__virtio_clear_bit(vdev, bit);
}

int vhmm_virtio_find_vqs(struct virtio_device *vdev, unsigned int count, struct virtqueue *vqs[],
			 struct virtqueue_info infos[])
{
	return virtio_find_vqs(vdev, count, vqs, infos, NULL);
}

void vhmm_virtio_del_vqs(struct virtio_device *vdev)
{
	vdev->config->del_vqs(vdev);
}

int vhmm_virtio_finalize_features(struct virtio_device *vdev)
{
	return vdev->config->finalize_features(vdev);
}

u8 vhmm_virtio_get_status(struct virtio_device *vdev)
{
	return vdev->config->get_status(vdev);
}

void vhmm_virtio_device_ready(struct virtio_device *vdev)
{
	virtio_device_ready(vdev);
}

void vhmm_virtio_read_config(struct virtio_device *vdev, unsigned int offset, void *buffer,
			     size_t len)
{
	virtio_cread_bytes(vdev, offset, buffer, len);
}
