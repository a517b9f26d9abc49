// SPDX-License-Identifier: GPL-2.0-only

//! Keeps the reverse mapping of an anonymous page alive while the page is migrated by its pfn.
//!
//! `migrate_device_pfns()` removes the mappings of a page, and `migrate_device_finalize()` walks
//! the page's `anon_vma` to put them back. In between the last process that maps the page may
//! exit and free the `anon_vma`; without the mmap lock a reference is needed (see the
//! comment at `rmap_walk_anon_lock()` in mm/rmap.c). The functions that take and drop one are not
//! exported, so this does what they do: in mm/rmap.c, `folio_get_anon_vma()`, `__put_anon_vma()`
//! and `anon_vma_free()`.
//!
//! C header: [`include/linux/rmap.h`](srctree/include/linux/rmap.h)

use crate::sys::{
    bindings,
    device_memory::page::PageRef, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    mm::MmWithUser,
    sync::{
        aref::ARef,
        rcu, //
    }, //
};

/// A reference to an `anon_vma`.
///
/// # Invariants
///
/// The object owns a reference.
pub(crate) struct AnonVma(NonNull<bindings::anon_vma>);

// SAFETY: A reference may be dropped on any thread.
unsafe impl Send for AnonVma {}

impl AnonVma {
    /// Whether both are references to the same `anon_vma`.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Takes a reference to the `anon_vma` of a mapped anonymous page; `None` if the page is not
    /// mapped or not anonymous, so that its reverse mapping is not walked.
    pub(crate) fn of(page: PageRef<'_>) -> Option<Self> {
        let guard = rcu::read_lock();
        let page = page.as_raw().as_ptr();
        // SAFETY: The page is valid. An `anon_vma` is freed by RCU (SLAB_TYPESAFE_BY_RCU), so its
        // reference count may be read while `guard` lives, whatever it is the count of; that the
        // page is mapped after the count was raised proves that it is the page's `anon_vma`.
        let anon_vma = unsafe {
            let bits = bindings::vhmm_page_mapping_bits(page);
            if bits & 3 != bindings::VHMM_MAPPING_ANON || !bindings::vhmm_page_is_mapped(page) {
                return None;
            }
            let anon_vma = (bits & !3) as *mut bindings::anon_vma;
            if anon_vma.is_null() || !bindings::vhmm_anon_vma_try_get(anon_vma) {
                return None;
            }
            // INVARIANT: The count was raised.
            let anon_vma = Self(NonNull::new_unchecked(anon_vma));
            if !bindings::vhmm_page_is_mapped(page) {
                drop(guard);
                return None;
            }
            anon_vma
        };
        Some(anon_vma)
    }
}

/// A mapping that may map a page.
pub(crate) struct PageMapping {
    /// Its address space; `None` if that has no users any more.
    pub(crate) mm: Option<ARef<MmWithUser>>,
    /// Where the mapping maps the page, or as much as it does of a huge one.
    pub(crate) range: Range<usize>,
}

impl AnonVma {
    /// The mapping with this number of those that may map `page`, whose `anon_vma` this is.
    /// Mappings come and go, so this is a hint only. Sleeps.
    pub(crate) fn mapping(&self, page: PageRef<'_>, number: u32) -> Option<PageMapping> {
        let (mut mm, mut range) = (core::ptr::null_mut(), 0..0);
        // SAFETY: By the type invariant the object is alive. The page is valid; what it says of
        // itself is a number.
        let found = unsafe {
            bindings::vhmm_anon_vma_nth_mapping(
                self.0.as_ptr(),
                page.as_raw().as_ptr(),
                number,
                &mut mm,
                &mut range.start,
                &mut range.end,
            )
        };
        let mm = NonNull::new(mm).map(|mm| {
            // SAFETY: The address space comes with a user of its own.
            unsafe { ARef::from_raw(mm.cast()) }
        });
        found.then_some(PageMapping { mm, range })
    }
}

impl Drop for AnonVma {
    fn drop(&mut self) {
        let anon_vma = self.0.as_ptr();
        // SAFETY: By the type invariant the object is alive, and so is its root, which every
        // `anon_vma` of its tree holds a reference to.
        unsafe {
            let root = bindings::vhmm_anon_vma_root(anon_vma);
            if bindings::vhmm_anon_vma_put_is_last(anon_vma) {
                free(anon_vma);
                if root != anon_vma && bindings::vhmm_anon_vma_put_is_last(root) {
                    free(root);
                }
            }
        }
    }
}

/// Frees an `anon_vma`. May sleep.
///
/// # Safety
///
/// The last reference must be gone, and the root must be alive.
unsafe fn free(anon_vma: *mut bindings::anon_vma) {
    // SAFETY: No new reference can be taken. A task may hold the lock without one, as a walk of the
    // reverse mapping does for a moment: it is waited for. `kfree()` takes an object of any
    // slab cache.
    unsafe {
        bindings::vhmm_anon_vma_wait_for_lock_holders(anon_vma);
        bindings::kfree(anon_vma.cast());
    }
}
