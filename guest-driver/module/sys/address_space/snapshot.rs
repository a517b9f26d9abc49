// SPDX-License-Identifier: GPL-2.0-only

//! Where the pages of an address space are, at the moment of asking.
//!
//! C headers: [`include/linux/hmm.h`](srctree/include/linux/hmm.h),
//! [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h)

use crate::sys::{
    address_space::{
        hmm_entries::{
            mend,
            order,
            ERROR,
            PFN_MASK,
            VALID, //
        },
        interval,
        locked::MmapLocked, //
    },
    bindings,
    device_memory::owner::Owner, //
};
use core::{
    ops::Range,
    ptr::null_mut, //
};
use kernel::{
    error::to_result,
    mm::MmWithUser,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    types::Opaque, //
};

/// What a snapshot says of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing that this memory's owner may see: hole, swap, being migrated, another device.
    Nowhere,
    /// A special page, or one without read access.
    Special,
    /// In system memory.
    System,
    /// In system memory, merged by KSM.
    Merged,
    /// In system memory, with references besides those of the page tables.
    SystemReferenced,
    /// In the device memory asked for, on the page with this frame number.
    Device(usize),
}

/// A view of an address space.
///
/// # Invariants
///
/// `notifier` is inserted into an address space from initialisation to drop.
///
/// # Examples
///
/// ```ignore
/// // Both before the mmap lock is taken.
/// let snapshot = KBox::pin_init(Snapshot::new(&mm), GFP_KERNEL)?;
/// let mut entries = KVVec::from_elem(0, range.len() >> PAGE_SHIFT, GFP_KERNEL)?;
///
/// let mut on_device = 0;
/// let guard = MmapReadGuard::lock(&mm, || false)?;
/// snapshot.look(&guard, range, memory.owner(), &mut entries, |_, place| {
///     if let Place::Device(_) = place {
///         on_device += 1;
///     }
/// })?;
/// ```
#[pin_data(PinnedDrop)]
pub(crate) struct Snapshot {
    #[pin]
    notifier: Opaque<bindings::mmu_interval_notifier>,
}

// SAFETY: The notifier may be used and removed from any thread.
unsafe impl Send for Snapshot {}
// SAFETY: As above; the kernel's functions that look through it take the locks that they need.
unsafe impl Sync for Snapshot {}

impl Snapshot {
    const OPS: bindings::mmu_interval_notifier_ops = bindings::mmu_interval_notifier_ops {
        invalidate: Some(Self::invalidate),
        invalidate_start: None,
        invalidate_finish: None,
    };

    /// Prepares for snapshots of `mm`. The first notifier of an address space takes the mmap lock for
    /// writing, so the caller must not hold it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `ERESTARTSYS` if a signal came.
    pub(crate) fn new(mm: &MmWithUser) -> impl PinInit<Self, Error> + '_ {
        try_pin_init!(Self {
            notifier <- Opaque::try_ffi_init(move |slot: *mut bindings::mmu_interval_notifier| {
                // SAFETY: `slot` is pinned until drop removes it, and `invalidate` uses nothing.
                unsafe { interval::insert(slot, mm, &Self::OPS) }
            }),
        })
    }

    /// Looks at every page of `range`, which lies within one mapping of the guard's address space, with
    /// the eyes of `owner`, and calls `each` with the number of the page within the range. `entries` is
    /// scratch space of at least as many elements as pages.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the guard is of another address space, the range is not page aligned, or the
    /// scratch space is too small. Nothing else: no page is asked for, and what changes meanwhile is
    /// not noticed ([`Snapshot::invalidate`]).
    pub(crate) fn look(
        &self,
        guard: &dyn MmapLocked,
        range: Range<usize>,
        owner: Owner,
        entries: &mut [usize],
        mut each: impl FnMut(usize, Place),
    ) -> Result {
        let entries = self.entries(guard, range, owner.as_raw(), entries)?;
        for (index, &entry) in entries.iter().enumerate() {
            each(index, place(entry));
        }
        Ok(())
    }

    /// As [`Snapshot::look`], but tells only whether a page is one that KSM merged, and of a huge
    /// page only once.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::look`].
    pub(crate) fn look_for_merged(
        &self,
        guard: &dyn MmapLocked,
        range: Range<usize>,
        entries: &mut [usize],
        mut each: impl FnMut(usize, bool),
    ) -> Result {
        let first = range.start >> PAGE_SHIFT;
        let entries = self.entries(guard, range, null_mut(), entries)?;
        let mut index = 0;
        while let Some(&entry) = entries.get(index) {
            each(index, is_merged(entry));
            // A huge page is mapped at a multiple of its size, and the look may begin within it.
            let pages = 1 << order(entry);
            index += pages - (first + index) % pages;
        }
        Ok(())
    }

    /// Has the kernel fill the entries of `range`.
    pub(super) fn entries<'e>(
        &self,
        guard: &dyn MmapLocked,
        range: Range<usize>,
        owner: *mut c_void,
        entries: &'e mut [usize],
    ) -> Result<&'e [usize]> {
        // SAFETY: The notifier was inserted, which set `mm` for good.
        let mm = unsafe { (*self.notifier.get()).mm };
        let is_aligned = (range.start | range.end) % PAGE_SIZE == 0;
        if mm != guard.mm().as_raw() || !is_aligned {
            return Err(EINVAL);
        }
        let pages = range.end.checked_sub(range.start).ok_or(EINVAL)? >> PAGE_SHIFT;
        let entries = entries.get_mut(..pages).ok_or(EINVAL)?;
        entries.fill(0);
        let mut query = bindings::hmm_range {
            notifier: self.notifier.get(),
            // SAFETY: The notifier is inserted.
            notifier_seq: unsafe { bindings::mmu_interval_read_begin(self.notifier.get()) },
            start: range.start,
            end: range.end,
            hmm_pfns: entries.as_mut_ptr(),
            default_flags: 0,
            pfn_flags_mask: 0,
            dev_private_owner: owner,
        };
        // SAFETY: `guard` holds the mmap lock of the notifier's address space, and `entries` has room
        // for the range. Without flags no page is faulted in.
        to_result(unsafe { bindings::hmm_range_fault(&mut query) })?;
        mend(range.start, entries);
        Ok(entries)
    }

    /// Called by the kernel when a range of the address space changes.
    ///
    /// # Safety
    ///
    /// Has no requirements.
    unsafe extern "C" fn invalidate(
        _notifier: *mut bindings::mmu_interval_notifier,
        _range: *const bindings::mmu_notifier_range,
        _seq: usize,
    ) -> bool {
        // A snapshot is old as soon as it is taken and keeps nothing that would have to be
        // forgotten. To say that time went on would only make it fail, in address spaces that
        // change all the time.
        true
    }
}

/// What an entry of `hmm_range_fault()` says.
fn place(entry: usize) -> Place {
    if entry & ERROR != 0 {
        return Place::Special;
    }
    if entry & VALID == 0 {
        return Place::Nowhere;
    }
    // SAFETY: A valid entry holds a pfn with a struct page. The page may have been freed since,
    // but its struct page stays, and the numbers read here are only a hint for a human.
    unsafe {
        let page = bindings::vhmm_pfn_to_page(entry & PFN_MASK);
        // `hmm_range_fault()` tells of device-private pages only if they are the asker's.
        if bindings::vhmm_page_is_of_a_device(page) {
            Place::Device(entry & PFN_MASK)
        } else if bindings::vhmm_page_is_ksm(page) {
            Place::Merged
        } else if bindings::vhmm_page_references(page) > bindings::vhmm_page_mappings(page) {
            Place::SystemReferenced
        } else {
            Place::System
        }
    }
}

/// Whether an entry of `hmm_range_fault()` is a page that KSM merged. Those are single ones.
fn is_merged(entry: usize) -> bool {
    entry & (ERROR | VALID) == VALID
        && order(entry) == 0
        // SAFETY: As in `place`.
        && unsafe { bindings::vhmm_page_is_ksm(bindings::vhmm_pfn_to_page(entry & PFN_MASK)) }
}

#[pinned_drop]
impl PinnedDrop for Snapshot {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. The caller of a method holds no lock that `invalidate`
        // takes, since it takes none.
        unsafe { bindings::mmu_interval_notifier_remove(self.notifier.get()) };
    }
}

#[kunit_tests(virtio_hmm_snapshot)]
mod tests {
    use super::*;
    use crate::sys::{
        address_space::{
            mmap_lock::MmapReadGuard,
            process::{
                ProcMount, //
                Process,
            }, //
        },
        services::kunit::TestMemory, //
    };

    #[test]
    fn a_page_is_somewhere_once_it_has_been_touched() -> Result {
        const PAGES: usize = 4;
        let memory = TestMemory::new(PAGES)?;
        let mm = memory.mm()?;
        let snapshot = KBox::pin_init(Snapshot::new(&mm), GFP_KERNEL)?;
        let in_system_memory = || {
            let (mut entries, mut count) = ([0; PAGES], 0);
            let guard = MmapReadGuard::lock(&mm, || false)?;
            let (range, owner) = (memory.range(), Owner::nobody());
            snapshot.look(&guard, range, owner, &mut entries, |_, place| match place {
                Place::System | Place::SystemReferenced => count += 1,
                _ => assert!(place == Place::Nowhere),
            })?;
            Ok::<_, Error>(count)
        };
        assert_eq!(in_system_memory()?, 0);
        memory.fill()?;
        assert_eq!(in_system_memory()?, PAGES);
        Ok(())
    }

    #[test]
    fn what_cannot_be_looked_at_is_an_error() -> Result {
        let memory = TestMemory::new(2)?;
        let (mm, range) = (memory.mm()?, memory.range());
        let look = |snapshot: &Snapshot, range, entries: &mut [usize]| {
            let guard = MmapReadGuard::lock(&mm, || false)?;
            snapshot.look(&guard, range, Owner::nobody(), entries, |_, _| {})
        };
        let snapshot = KBox::pin_init(Snapshot::new(&mm), GFP_KERNEL)?;
        assert!(look(&snapshot, range.clone(), &mut [0; 2]).is_ok());
        assert!(look(&snapshot, range.clone(), &mut [0; 1]) == Err(EINVAL));
        assert!(look(&snapshot, range.start..range.end - 1, &mut [0; 2]) == Err(EINVAL));
        assert!(look(&snapshot, range.end..range.start, &mut [0; 2]) == Err(EINVAL));
        // A lock of another address space than that of the snapshot.
        let other = Process::find(&ProcMount::new()?, 1)?.mm().clone();
        let snapshot = KBox::pin_init(Snapshot::new(&other), GFP_KERNEL)?;
        assert!(look(&snapshot, range, &mut [0; 2]) == Err(EINVAL));
        Ok(())
    }

    #[test]
    fn an_entry_without_a_page_is_nowhere() {
        assert!(place(0) == Place::Nowhere);
        assert!(place(ERROR) == Place::Special);
        assert!(place(ERROR | VALID) == Place::Special);
        assert!(!is_merged(0));
        assert!(!is_merged(ERROR));
    }
}
