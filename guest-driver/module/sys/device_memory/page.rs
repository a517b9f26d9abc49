// SPDX-License-Identifier: GPL-2.0-only

//! Pages that a migration reads from or writes to.

use crate::sys::{
    address_space::mm::Vma,
    bindings,
    device_memory::placement::Placement, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::prelude::*;

/// log2 of the number of pages of a huge page.
pub(crate) const HUGE_ORDER: u32 = 9;
/// Pages of a huge page.
pub(crate) const HUGE_PAGES: usize = 1 << HUGE_ORDER;

/// A locked page or huge page with one reference that this object owns: a destination of a
/// migration, either in system memory or on a device.
///
/// Dropping it unlocks and frees the page.
///
/// # Invariants
///
/// The page is not a tail page, it is locked, and the object owns a reference. It is a huge page if
/// and only if `is_huge`.
pub(crate) struct Destination {
    page: NonNull<bindings::page>,
    is_huge: bool,
}

impl Destination {
    /// Wraps a page.
    ///
    /// # Safety
    ///
    /// The page must not be a tail page, it must be locked, and the caller hands over a reference.
    /// It must be a huge page if and only if `is_huge`.
    pub(in crate::sys) unsafe fn from_raw(page: NonNull<bindings::page>, is_huge: bool) -> Self {
        Self { page, is_huge }
    }

    /// Locks a page.
    ///
    /// # Safety
    ///
    /// The page must be a new single page without other references, and the caller hands over its
    /// reference.
    pub(in crate::sys) unsafe fn from_new(page: NonNull<bindings::page>) -> Self {
        // SAFETY: There is no other reference, so the lock is free.
        unsafe { bindings::vhmm_page_lock(page.as_ptr()) };
        // INVARIANT: By the safety requirement; the page is locked.
        Self {
            page,
            is_huge: false,
        }
    }

    /// Allocates a system page for `address` in `vma`, by the memory policy of the mapping or else of
    /// the calling task. It is not zeroed by this function and not charged: the charge moves with the
    /// migration.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn system_for(vma: &Vma<'_>, address: usize) -> Result<Self> {
        // SAFETY: The VMA is valid while its mmap lock is held, which `Vma` proves.
        let page = unsafe { bindings::vhmm_page_alloc_for(vma.as_raw(), address) };
        Self::lock(page, false)
    }

    /// As [`Destination::system_for`], a huge page for the huge page at `address`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; likely, when memory is fragmented.
    pub(super) fn huge_system_for(vma: &Vma<'_>, address: usize) -> Result<Self> {
        // SAFETY: As in `system_for`.
        let page = unsafe { bindings::vhmm_huge_page_alloc_for(vma.as_raw(), address) };
        Self::lock(page, true)
    }

    /// Allocates a page where `placement` says.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn placed(placement: &mut Placement, is_huge: bool) -> Result<Self> {
        match is_huge {
            true => Self::lock(placement.alloc_huge(), true),
            false => Self::lock(placement.alloc(), false),
        }
    }

    /// Allocates a system page by the memory policy of the calling task.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(in crate::sys) fn system() -> Result<Self> {
        // SAFETY: Has no requirements but a sleepable context.
        Self::lock(unsafe { bindings::vhmm_page_alloc() }, false)
    }

    fn lock(page: *mut bindings::page, is_huge: bool) -> Result<Self> {
        let page = NonNull::new(page).ok_or(ENOMEM)?;
        // SAFETY: The page was just allocated, so its lock is free.
        unsafe { bindings::vhmm_page_lock(page.as_ptr()) };
        // INVARIANT: The allocation gave one reference, and the page is locked.
        Ok(Self { page, is_huge })
    }

    /// Whether this is a huge page.
    pub(crate) fn is_huge(&self) -> bool {
        self.is_huge
    }

    /// Gives the page away, reference and lock.
    pub(in crate::sys) fn into_raw(self) -> NonNull<bindings::page> {
        ManuallyDrop::new(self).page
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe {
            bindings::vhmm_page_unlock(self.page.as_ptr());
            bindings::vhmm_page_put(self.page.as_ptr());
        }
    }
}

/// A page that is kept alive for `'a` by another reference.
#[derive(Clone, Copy)]
pub(crate) struct PageRef<'a>(NonNull<bindings::page>, PhantomData<&'a ()>);

impl PageRef<'_> {
    /// Wraps a page.
    ///
    /// # Safety
    ///
    /// The page must stay allocated for the lifetime of the result.
    pub(in crate::sys) unsafe fn from_raw(page: NonNull<bindings::page>) -> Self {
        Self(page, PhantomData)
    }

    pub(in crate::sys) fn as_raw(self) -> NonNull<bindings::page> {
        self.0
    }

    /// Whether the page belongs to a huge page or another large folio.
    pub(crate) fn is_large(self) -> bool {
        // SAFETY: The page is valid, so it belongs to a folio.
        unsafe { bindings::vhmm_page_order(self.0.as_ptr()) != 0 }
    }

    /// The page frame number.
    pub(crate) fn pfn(self) -> usize {
        // SAFETY: The page is valid.
        unsafe { bindings::vhmm_page_to_pfn(self.0.as_ptr()) }
    }

    /// The number that the page has for its reverse mapping: pages of one mapping that follow each
    /// other in memory have numbers that do, too. Only a hint unless the page is locked.
    pub(crate) fn offset(self) -> usize {
        // SAFETY: The page is valid, so it belongs to a folio.
        unsafe { bindings::vhmm_page_offset(self.0.as_ptr()) }
    }

    /// Whether the page belongs to private anonymous memory.
    pub(crate) fn is_anon(self) -> bool {
        // SAFETY: The page is valid, so it belongs to a folio.
        unsafe { bindings::vhmm_page_is_anon(self.0.as_ptr()) }
    }

    /// Whether KSM merged the page.
    pub(crate) fn is_ksm(self) -> bool {
        // SAFETY: As above.
        unsafe { bindings::vhmm_page_is_ksm(self.0.as_ptr()) }
    }

    /// Whether a memory cgroup is charged for the page, or none is for any. An anonymous page has
    /// its charge until it is freed, or until a migration hands the charge on to its copy.
    pub(crate) fn is_charged(self) -> bool {
        // SAFETY: As above.
        unsafe { bindings::vhmm_page_is_charged(self.0.as_ptr()) }
    }
}

#[kunit_tests(virtio_hmm_page)]
mod tests {
    use super::*;

    #[test]
    fn a_system_page_is_single() -> Result {
        let page = Destination::system()?;
        assert!(!page.is_huge());
        Ok(())
    }
}
