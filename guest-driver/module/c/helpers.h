/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One-line functions for inlines and macros that bindgen cannot express. No logic lives here.
 */
#ifndef VHMM_HELPERS_H
#define VHMM_HELPERS_H

#include <linux/mm_types.h>
#include <linux/types.h>

struct anon_vma;
struct mmu_interval_notifier;
struct mmu_notifier_range;
struct virtio_device;
struct virtqueue;
struct virtqueue_info;
struct workqueue_struct;

/* struct page and folio */
unsigned long vhmm_page_to_pfn(const struct page *page);
struct page *vhmm_pfn_to_page(unsigned long pfn);
unsigned long vhmm_buffer_to_pfn(const void *buffer);
struct dev_pagemap *vhmm_page_pgmap(const struct page *page);
bool vhmm_page_is_of_a_device(const struct page *page);
bool vhmm_page_is_zero(const struct page *page);
bool vhmm_page_is_anon(struct page *page);
bool vhmm_page_is_ksm(struct page *page);
bool vhmm_page_is_charged(struct page *page);
int vhmm_page_references(struct page *page);
int vhmm_page_mappings(struct page *page);
void vhmm_page_put(struct page *page);
void vhmm_page_lock(struct page *page);
void vhmm_page_unlock(struct page *page);
struct page *vhmm_page_alloc_for(struct vm_area_struct *vma, unsigned long address);
struct page *vhmm_page_alloc(void);
unsigned long vhmm_pages_alloc_bulk(unsigned long count, struct page **pages);
struct page *vhmm_huge_page_alloc_for(struct vm_area_struct *vma, unsigned long address);
unsigned int vhmm_page_order(struct page *page);
bool vhmm_page_is_tail(struct page *page);
void vhmm_device_page_init(struct page *page, struct dev_pagemap *pgmap, unsigned int order);

/* anon_vma */
unsigned long vhmm_page_offset(struct page *page);
unsigned long vhmm_page_mapping_bits(struct page *page);
bool vhmm_page_is_mapped(struct page *page);
bool vhmm_anon_vma_try_get(struct anon_vma *anon_vma);
bool vhmm_anon_vma_put_is_last(struct anon_vma *anon_vma);
struct anon_vma *vhmm_anon_vma_root(struct anon_vma *anon_vma);
void vhmm_anon_vma_wait_for_lock_holders(struct anon_vma *anon_vma);

/* vm_area_struct and mm_struct */
bool vhmm_vma_is_anonymous(struct vm_area_struct *vma);
bool vhmm_vma_is_mlocked(struct vm_area_struct *vma);
bool vhmm_vma_is_mergeable(struct vm_area_struct *vma);
bool vhmm_vma_wants_huge_pages(struct vm_area_struct *vma);
bool vhmm_vma_is_exclusive(struct vm_area_struct *vma);
bool vhmm_vma_has_memory_policy(struct vm_area_struct *vma);
bool vhmm_vma_may_have_markers(struct vm_area_struct *vma);
bool vhmm_vma_is_dax(struct vm_area_struct *vma);
bool vhmm_vma_is_hugetlb(struct vm_area_struct *vma);
unsigned long vhmm_mm_task_size(struct mm_struct *mm);
bool vhmm_mm_has_swapped_pages(struct mm_struct *mm);
bool vhmm_mmap_lock_is_contended(struct mm_struct *mm);
long vhmm_mm_add_pinned(struct mm_struct *mm, long pages);
bool vhmm_mm_has_notifiers(struct mm_struct *mm);
int vhmm_mmap_read_lock_killable(struct mm_struct *mm);
int vhmm_mmap_write_lock_killable(struct mm_struct *mm);
bool vhmm_mmap_write_trylock(struct mm_struct *mm);
void vhmm_mmap_write_unlock(struct mm_struct *mm);
void vhmm_vma_start_write(struct vm_area_struct *vma);

/* mmu_notifier */
bool vhmm_notifier_range_may_sleep(const struct mmu_notifier_range *range);
struct page *vhmm_page_make_exclusive(struct mm_struct *mm, unsigned long address, void *owner);
void vhmm_notifier_set_seq(struct mmu_interval_notifier *notifier, unsigned long seq);
bool vhmm_notifier_has_changed(struct mmu_interval_notifier *notifier, unsigned long seq);

/* tasks, workqueue and CPUs */
bool vhmm_signal_waits(void);
bool vhmm_task_is_dying(void);
bool vhmm_task_is_of_kernel(void);
bool vhmm_task_uses(const struct mm_struct *mm);
bool vhmm_task_has_memory_policy(void);
bool vhmm_task_reclaims(void);
unsigned int vhmm_own_clears_begin(void);
void vhmm_own_clears_end(unsigned int flags);
bool vhmm_task_makes_own_clears(void);
struct workqueue_struct *vhmm_workqueue_alloc(const char *name, unsigned int flags);
unsigned int vhmm_online_cpus(void);

/* virtio */
bool vhmm_dma_can_share(struct device *device);
dma_addr_t vhmm_dma_share(struct device *device, unsigned long pfn, size_t len);
bool vhmm_dma_mapping_failed(struct device *device, dma_addr_t address);
bool vhmm_may_warn(void);
bool vhmm_may_log_error(void);
bool vhmm_virtio_has_feature(const struct virtio_device *vdev, unsigned int bit);
void vhmm_virtio_clear_feature(struct virtio_device *vdev, unsigned int bit);
int vhmm_virtio_find_vqs(struct virtio_device *vdev, unsigned int count, struct virtqueue *vqs[],
			 struct virtqueue_info infos[]);
void vhmm_virtio_del_vqs(struct virtio_device *vdev);
int vhmm_virtio_finalize_features(struct virtio_device *vdev);
u8 vhmm_virtio_get_status(struct virtio_device *vdev);
void vhmm_virtio_device_ready(struct virtio_device *vdev);
void vhmm_virtio_read_config(struct virtio_device *vdev, unsigned int offset, void *buffer,
			     size_t len);

#endif
