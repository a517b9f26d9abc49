// SPDX-License-Identifier: GPL-2.0-only

//! The mmap lock of an address space, held in one way or the other.
//!
//! C header: [`include/linux/mmap_lock.h`](srctree/include/linux/mmap_lock.h)

use crate::sys::{
    address_space::{
        locked::MmapLocked,
        mm::Vma, //
    },
    bindings, //
};
use kernel::{
    mm::MmWithUser,
    prelude::*,
    types::NotThreadSafe, //
};

/// The mmap lock, held for reading. Unlike the guard of the `kernel` crate it tells whose lock it is.
///
/// # Invariants
///
/// The guard is that of `mm`.
///
/// # Examples
///
/// ```ignore
/// let guard = MmapReadGuard::lock(&mm);
/// let vma = Vma::find(&guard, address).ok_or(EFAULT)?;
/// // The mapping stays what it is.
/// ```
pub(crate) struct MmapReadGuard<'a> {
    mm: &'a MmWithUser,
    _guard: kernel::mm::MmapReadGuard<'a>,
}

impl<'a> MmapReadGuard<'a> {
    /// Waits for the lock.
    pub(crate) fn lock(mm: &'a MmWithUser) -> Self {
        // INVARIANT: It is.
        Self {
            mm,
            _guard: mm.mmap_read_lock(),
        }
    }

    /// Takes the lock if nobody has it for writing.
    pub(crate) fn try_lock(mm: &'a MmWithUser) -> Option<Self> {
        let guard = mm.mmap_read_trylock()?;
        // INVARIANT: It is.
        Some(Self { mm, _guard: guard })
    }
}

// SAFETY: By the type invariant; this is what the guard of the `kernel` crate stands for.
unsafe impl MmapLocked for MmapReadGuard<'_> {
    fn mm(&self) -> &MmWithUser {
        self.mm
    }
}

/// The mmap lock, held for writing.
///
/// # Invariants
///
/// The current thread holds the lock of `mm` for writing, and this object owns that.
///
/// # Examples
///
/// ```ignore
/// let guard = MmapWriteGuard::lock(&mm);
/// let vma = Vma::find(&guard, address).ok_or(EFAULT)?;
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
    pub(in crate::sys) fn is_of(&self, vma: &Vma<'_>) -> bool {
        self.mm.as_raw() == vma.mm().as_raw()
    }

    /// Waits until no page fault of the mapping is being served, and lets none begin until the lock
    /// is given up. Without this, faults go on under the lock of the mapping alone. Does nothing for
    /// a mapping of another address space.
    pub(crate) fn keep_faults_out(&self, vma: &Vma<'_>) {
        if self.is_of(vma) {
            // SAFETY: By the type invariant the mmap lock of the mapping's address space is held for
            // writing.
            unsafe { bindings::vhmm_vma_start_write(vma.as_raw()) };
        }
    }
}

// SAFETY: By the type invariant.
unsafe impl MmapLocked for MmapWriteGuard<'_> {
    fn mm(&self) -> &MmWithUser {
        self.mm
    }
}

impl Drop for MmapWriteGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_mmap_write_unlock(self.mm.as_raw()) };
    }
}

#[kunit_tests(virtio_hmm_mmap_lock)]
mod tests {
    use super::*;
    use crate::sys::services::kunit::TestMemory;

    #[test]
    fn a_guard_tells_whose_lock_it_is() -> Result {
        let mm = TestMemory::new(1)?.mm()?;
        assert!(MmapReadGuard::lock(&mm).mm().as_raw() == mm.as_raw());
        assert!(MmapWriteGuard::lock(&mm).mm().as_raw() == mm.as_raw());
        Ok(())
    }

    #[test]
    fn who_writes_has_the_lock_alone() -> Result {
        let mm = TestMemory::new(1)?.mm()?;
        let guard = MmapWriteGuard::lock(&mm);
        assert!(MmapReadGuard::try_lock(&mm).is_none());
        drop(guard);
        assert!(MmapReadGuard::try_lock(&mm).is_some());
        Ok(())
    }
}
