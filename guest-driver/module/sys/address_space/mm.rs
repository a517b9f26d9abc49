// SPDX-License-Identifier: GPL-2.0-only

//! Address spaces and their mappings.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::sys::{
    address_space::locked::MmapLocked,
    bindings, //
};
use core::{
    marker::PhantomData,
    ops::Range, //
};
use kernel::{
    mm::{
        virt::{
            flags,
            VmaRef, //
        },
        Mm,
        MmWithUser, //
    },
    prelude::*, //
};

/// Whether a task waits for the mmap lock of `mm`.
pub(crate) fn mmap_lock_is_contended(mm: &MmWithUser) -> bool {
    // SAFETY: The address space is valid.
    unsafe { bindings::vhmm_mmap_lock_is_contended(mm.as_raw()) }
}

/// Whether pages of `mm` are swapped out. If not, none is but those that reclaim unmaps at this moment
/// or later.
pub(crate) fn has_swapped_pages(mm: &MmWithUser) -> bool {
    // SAFETY: The address space is valid.
    unsafe { bindings::vhmm_mm_has_swapped_pages(mm.as_raw()) }
}

/// Adds to the pages of `mm` that count as pinned (`VmPin` of `/proc/PID/status`), and returns how many
/// there are then. Does not sleep.
pub(crate) fn add_pinned(mm: &Mm, pages: isize) -> isize {
    // SAFETY: The structure is valid.
    unsafe { bindings::vhmm_mm_add_pinned(mm.as_raw(), pages) }
}

/// The end of the addresses that `mm` can map.
pub(crate) fn end_of_addresses(mm: &MmWithUser) -> usize {
    // SAFETY: The address space is valid.
    unsafe { bindings::vhmm_mm_task_size(mm.as_raw()) }
}

/// The first address in `range` that may have a page, or the end of the range: nothing before it is
/// mapped, or has a page table. Within one page table it does not look. It gives up after a bounded
/// number of mappings and empty tables, and returns how far it came.
pub(crate) fn next_populated(guard: &dyn MmapLocked, range: Range<usize>) -> usize {
    /// So many mappings without a page are passed.
    const MAPPINGS: usize = 256;

    let mut address = range.start;
    for _ in 0..MAPPINGS {
        match Vma::find(guard, address) {
            Some(vma) if vma.start() < range.end => {
                let part = address.max(vma.start())..range.end.min(vma.end());
                address = vma.next_populated(part.clone());
                if address < part.end || address >= range.end {
                    return address;
                }
            }
            _ => return range.end,
        }
    }
    address
}

/// What keeps all pages of a mapping from moving.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum VmaObstacle {
    /// No read access.
    NoAccess,
    /// I/O, PFN, mixed, do-not-expand or DAX.
    Special,
    /// hugetlb.
    Hugetlb,
    /// Shared, hence page cache or shmem.
    Shared,
}

/// A mapping, while the mmap lock is held for reading or writing. (A per-VMA lock is not enough
/// for a migration.)
///
/// # Invariants
///
/// The mmap lock of the mapping's address space is held for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Vma<'a> {
    vma: &'a VmaRef,
    _lock: PhantomData<&'a dyn MmapLocked>,
}

impl<'a> Vma<'a> {
    /// Wraps a mapping.
    ///
    /// # Safety
    ///
    /// The mmap lock must be held for `'a`.
    pub(in crate::sys) unsafe fn from_raw(vma: *const bindings::vm_area_struct) -> Self {
        Self {
            // SAFETY: By the safety requirement.
            vma: unsafe { VmaRef::from_raw(vma) },
            _lock: PhantomData,
        }
    }

    /// The first mapping of the guard's address space that ends after `address`.
    pub(crate) fn find(guard: &'a dyn MmapLocked, address: usize) -> Option<Self> {
        // SAFETY: The guard holds the mmap lock of this address space.
        let vma = unsafe { bindings::find_vma(guard.mm().as_raw(), address) };
        // SAFETY: The mapping is valid while the lock is held, which is as long as the guard is borrowed.
        (!vma.is_null()).then(|| unsafe { Self::from_raw(vma) })
    }

    pub(in crate::sys) fn as_raw(&self) -> *mut bindings::vm_area_struct {
        self.vma.as_ptr()
    }

    /// The address space.
    pub(crate) fn mm(&self) -> &'a MmWithUser {
        self.vma.mm()
    }

    /// First address.
    pub(crate) fn start(&self) -> usize {
        self.vma.start()
    }

    /// One past the last address.
    pub(crate) fn end(&self) -> usize {
        self.vma.end()
    }

    /// The first address in `part` of the mapping that page tables may map, to within one page table,
    /// or its end. It gives up after a bounded number of empty tables, and returns how far it came.
    pub(crate) fn next_populated(&self, part: Range<usize>) -> usize {
        // SAFETY: By the type invariant the mmap lock is held, under which the page tables of a
        // mapping stay.
        unsafe { bindings::vhmm_mm_next_populated(self.mm().as_raw(), part.start, part.end) }
    }

    /// Whether the mapping has no file behind it.
    pub(crate) fn is_anonymous(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_vma_is_anonymous(self.as_raw()) }
    }

    /// Whether `mlock()` keeps the mapping in memory.
    pub(crate) fn is_mlocked(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_vma_is_mlocked(self.as_raw()) }
    }

    /// Whether KSM may merge pages of the mapping (`MADV_MERGEABLE`).
    pub(crate) fn is_mergeable(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_vma_is_mergeable(self.as_raw()) }
    }

    /// Whether huge pages are welcome in the mapping (`MADV_NOHUGEPAGE` says no).
    pub(crate) fn wants_huge_pages(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_vma_wants_huge_pages(self.as_raw()) }
    }

    /// Whether no page of the mapping is mapped by another process. As long as the mmap lock is held,
    /// that does not change.
    pub(crate) fn is_exclusive(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_vma_is_exclusive(self.as_raw()) }
    }

    /// Whether the reverse mapping leads to `range`, which lies within the mapping, only from pages that
    /// the mapping has there. It does not if `mremap()` moved pages away from there. As long as the
    /// mmap lock is held and the mapping is exclusive, that does not change. Waits for the lock of the
    /// reverse mapping, which comes after that of a page.
    pub(in crate::sys) fn is_alone(&self, range: &Range<usize>) -> bool {
        // SAFETY: By the type invariant; the mmap lock is held.
        unsafe { bindings::vhmm_vma_is_alone(self.as_raw(), range.start, range.end) }
    }

    /// Whether the mapping has a memory policy of its own (`mbind()`).
    pub(crate) fn has_memory_policy(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_vma_has_memory_policy(self.as_raw()) }
    }

    /// Whether markers may stand in the place of pages: guard regions, or those of userfaultfd.
    pub(crate) fn may_have_markers(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_vma_may_have_markers(self.as_raw()) }
    }

    /// Whether the kernel tracks writes to the mapping: by soft-dirty bits, or by write protection of
    /// userfaultfd.
    pub(crate) fn tracks_writes(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_vma_tracks_writes(self.as_raw()) }
    }

    /// Whether holes of the mapping may be given device pages. The kernel makes such a page writable
    /// without a soft-dirty bit, and drops userfaultfd's write protection of a zero page
    /// (docs/kernel-faults.md), so a write to it would not be tracked.
    pub(crate) fn may_be_populated(&self) -> bool {
        self.is_anonymous() && !self.tracks_writes()
    }

    /// Whether `PAGEMAP_SCAN` may write-protect pages of the mapping, for which it takes the mmap lock
    /// for reading.
    pub(crate) fn is_scanned(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_vma_is_scanned(self.as_raw()) }
    }

    /// Whether the mapping is registered with a userfaultfd.
    pub(crate) fn has_userfaultfd(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_vma_has_userfaultfd(self.as_raw()) }
    }

    /// Whether the process may write it.
    pub(crate) fn is_writable(&self) -> bool {
        self.vma.flags() & flags::WRITE != 0
    }

    /// What keeps all pages of the mapping from moving, if anything does.
    pub(crate) fn obstacle(&self) -> Option<VmaObstacle> {
        let special = flags::IO | flags::PFNMAP | flags::MIXEDMAP | flags::DONTEXPAND;
        let vm_flags = self.vma.flags();
        // SAFETY: By the type invariant.
        if unsafe { bindings::vhmm_vma_is_hugetlb(self.as_raw()) } {
            Some(VmaObstacle::Hugetlb)
        } else if vm_flags & special != 0
            // SAFETY: By the type invariant.
            || unsafe { bindings::vhmm_vma_is_dax(self.as_raw()) }
        {
            Some(VmaObstacle::Special)
        } else if vm_flags & flags::READ == 0 {
            Some(VmaObstacle::NoAccess)
        } else if vm_flags & flags::SHARED != 0 {
            Some(VmaObstacle::Shared)
        } else {
            None
        }
    }
}

#[kunit_tests(virtio_hmm_mm)]
mod tests {
    use super::*;
    use crate::sys::{
        address_space::mmap_lock::MmapReadGuard,
        services::kunit::TestMemory, //
    };

    #[test]
    fn a_mapping_is_found_by_any_address_before_its_end() -> Result {
        let memory = TestMemory::new(2)?;
        let (mm, range) = (memory.mm()?, memory.range());
        let guard = MmapReadGuard::lock(&mm, || false)?;
        let vma = Vma::find(&guard, range.end - 1).ok_or(EFAULT)?;
        assert!(vma.start() <= range.start && range.end <= vma.end());
        assert!(vma.mm().as_raw() == mm.as_raw());
        assert!(Vma::find(&guard, 0).is_some_and(|first| first.start() == vma.start()));
        assert!(Vma::find(&guard, vma.end()).is_none());
        Ok(())
    }

    #[test]
    fn a_mapping_tells_what_keeps_its_pages() -> Result {
        let what = |memory: TestMemory| {
            let (mm, start) = (memory.mm()?, memory.range().start);
            let guard = MmapReadGuard::lock(&mm, || false)?;
            let vma = Vma::find(&guard, start).ok_or(EFAULT)?;
            Ok::<_, Error>((vma.obstacle(), vma.is_anonymous()))
        };
        assert!(what(TestMemory::new(1)?)? == (None, true));
        assert!(what(TestMemory::without_access(1)?)? == (Some(VmaObstacle::NoAccess), true));
        assert!(what(TestMemory::shared(1)?)? == (Some(VmaObstacle::Shared), false));
        Ok(())
    }
}
