// SPDX-License-Identifier: GPL-2.0-only

//! The mmap lock of an address space, held in one way or the other.
//!
//! C header: [`include/linux/mmap_lock.h`](srctree/include/linux/mmap_lock.h)

use super::{
    bindings,
    mm::Vma, //
};
use kernel::{
    mm::{
        MmWithUser,
        MmapReadGuard, //
    },
    types::NotThreadSafe, //
};

/// A guard of the mmap lock.
///
/// # Safety
///
/// While the value lives the lock is held, for reading or for writing.
pub(crate) unsafe trait MmapLocked {}

// SAFETY: This is what the guard stands for.
unsafe impl MmapLocked for MmapReadGuard<'_> {}
// SAFETY: By the type invariant.
unsafe impl MmapLocked for MmapWriteGuard<'_> {}

/// The mmap lock, held for writing.
///
/// # Invariants
///
/// The current thread holds the lock for writing, and this object owns that.
///
/// # Examples
///
/// ```ignore
/// let guard = MmapWriteGuard::lock(&mm);
/// let vma = Vma::find(&mm, &guard, address).ok_or(EFAULT)?;
/// guard.keep_faults_out(&vma);
/// // No page of the mapping comes or goes but by reclaim.
/// ```
pub(crate) struct MmapWriteGuard<'a> {
    mm: &'a MmWithUser,
    _not_send: NotThreadSafe,
}

impl<'a> MmapWriteGuard<'a> {
    /// Waits for the lock.
    pub(crate) fn lock(mm: &'a MmWithUser) -> Self {
        // SAFETY: The address space is valid while it is referenced.
        unsafe { bindings::vhmm_mmap_write_lock(mm.as_raw()) };
        // INVARIANT: The lock was just taken.
        Self {
            mm,
            _not_send: NotThreadSafe,
        }
    }

    /// Whether this is the lock of the mapping's address space.
    pub(super) fn is_of(&self, vma: &Vma<'_>) -> bool {
        self.mm.as_raw() == vma.mm().as_raw()
    }

    /// Waits until no page fault of the mapping is being served, and lets none begin until the lock
    /// is given up. Without this, faults go on under the lock of the mapping alone.
    pub(crate) fn keep_faults_out(&self, vma: &Vma<'_>) {
        // SAFETY: The mmap lock of the mapping's address space is held, and callers lock no other
        // than that one at a time; it is held for writing, by the type invariant.
        unsafe { bindings::vhmm_vma_start_write(vma.as_raw()) };
    }
}

impl Drop for MmapWriteGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_mmap_write_unlock(self.mm.as_raw()) };
    }
}
