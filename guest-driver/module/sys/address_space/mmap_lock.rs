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
    time::{
        delay::fsleep,
        Delta, //
    },
    types::NotThreadSafe, //
};

/// How long a thread of the kernel sleeps after its first try to get a lock, and at most.
const PAUSE: (Delta, Delta) = (Delta::from_micros(50), Delta::from_millis(1));

/// Waits for a lock.
///
/// The owner of an address space can keep its lock as long as it wants, for instance by means of a FUSE
/// server. So a thread of a process waits until it is killed, and one of the kernel, which gets no
/// signals, tries again until `gives_up`.
fn wait_for<T>(
    mut try_lock: impl FnMut() -> Option<T>,
    lock_killable: impl FnOnce() -> Option<T>,
    mut gives_up: impl FnMut() -> bool,
) -> Result<T> {
    kernel::task::might_sleep();
    if let Some(guard) = try_lock() {
        return Ok(guard);
    }
    // SAFETY: Has no requirements.
    if !unsafe { bindings::vhmm_task_is_of_kernel() } {
        return lock_killable().ok_or(EINTR);
    }
    let (mut pause, most) = PAUSE;
    while !gives_up() {
        fsleep(pause);
        if let Some(guard) = try_lock() {
            return Ok(guard);
        }
        pause = (pause + pause).min(most);
    }
    Err(EINTR)
}

/// The mmap lock, held for reading. Unlike the guard of the `kernel` crate it tells whose lock it is.
///
/// # Invariants
///
/// The current thread holds the lock of `mm` for reading, and this object owns that.
///
/// # Examples
///
/// ```ignore
/// let guard = MmapReadGuard::lock(&mm, || link.is_stopping())?;
/// let vma = Vma::find(&guard, address).ok_or(EFAULT)?;
/// // The mapping stays what it is.
/// ```
pub(crate) struct MmapReadGuard<'a> {
    mm: &'a MmWithUser,
    _not_send: NotThreadSafe,
}

impl<'a> MmapReadGuard<'a> {
    /// Waits for the lock; a thread of the kernel until `gives_up`.
    ///
    /// # Errors
    ///
    /// `EINTR`: the thread was killed, or gave up.
    pub(crate) fn lock(mm: &'a MmWithUser, gives_up: impl FnMut() -> bool) -> Result<Self> {
        let lock_killable = || {
            // SAFETY: The address space is valid while it is referenced.
            let result = unsafe { bindings::vhmm_mmap_read_lock_killable(mm.as_raw()) };
            // INVARIANT: The lock was just taken.
            (result == 0).then(|| Self {
                mm,
                _not_send: NotThreadSafe,
            })
        };
        wait_for(|| Self::try_lock(mm), lock_killable, gives_up)
    }

    /// Takes the lock unless a thread has it for writing, or waits for it.
    pub(crate) fn try_lock(mm: &'a MmWithUser) -> Option<Self> {
        // SAFETY: The address space is valid while it is referenced.
        let is_locked = unsafe { bindings::mmap_read_trylock(mm.as_raw()) };
        // INVARIANT: The lock was just taken.
        is_locked.then(|| Self {
            mm,
            _not_send: NotThreadSafe,
        })
    }
}

impl Drop for MmapReadGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::mmap_read_unlock(self.mm.as_raw()) };
    }
}

// SAFETY: By the type invariant.
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
/// let guard = MmapWriteGuard::lock(&mm, || link.is_stopping())?;
/// let vma = Vma::find(&guard, address).ok_or(EFAULT)?;
/// guard.keep_faults_out(&vma);
/// // No page of the mapping comes or goes but by reclaim.
/// ```
pub(crate) struct MmapWriteGuard<'a> {
    mm: &'a MmWithUser,
    _not_send: NotThreadSafe,
}

impl<'a> MmapWriteGuard<'a> {
    /// Waits for the lock; a thread of the kernel until `gives_up`.
    ///
    /// # Errors
    ///
    /// `EINTR`: the thread was killed, or gave up.
    pub(crate) fn lock(mm: &'a MmWithUser, gives_up: impl FnMut() -> bool) -> Result<Self> {
        // INVARIANT: The guard is made when the lock was just taken.
        let guard = |is_locked: bool| {
            is_locked.then(|| Self {
                mm,
                _not_send: NotThreadSafe,
            })
        };
        wait_for(
            // SAFETY: The address space is valid while it is referenced.
            || guard(unsafe { bindings::vhmm_mmap_write_trylock(mm.as_raw()) }),
            // SAFETY: As above.
            || guard(unsafe { bindings::vhmm_mmap_write_lock_killable(mm.as_raw()) } == 0),
            gives_up,
        )
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

/// The mmap lock that the kernel took, in one way or the other, before it called the driver.
///
/// # Invariants
///
/// The current thread holds the lock of `mm` as long as the driver does not return to the kernel.
pub(in crate::sys) struct MmapLockOfCaller<'a> {
    mm: &'a MmWithUser,
    _not_send: NotThreadSafe,
}

impl<'a> MmapLockOfCaller<'a> {
    /// Wraps the lock.
    ///
    /// # Safety
    ///
    /// The kernel must have called the driver with the lock of `mm` held, and `'a` must end before the
    /// driver returns.
    pub(in crate::sys) unsafe fn new(mm: &'a MmWithUser) -> Self {
        // INVARIANT: By the safety requirement.
        Self {
            mm,
            _not_send: NotThreadSafe,
        }
    }
}

// SAFETY: By the type invariant.
unsafe impl MmapLocked for MmapLockOfCaller<'_> {
    fn mm(&self) -> &MmWithUser {
        self.mm
    }
}

#[kunit_tests(virtio_hmm_mmap_lock)]
mod tests {
    use super::*;
    use crate::sys::services::kunit::TestMemory;

    #[test]
    fn a_guard_tells_whose_lock_it_is() -> Result {
        let mm = TestMemory::new(1)?.mm()?;
        assert!(MmapReadGuard::lock(&mm, || false)?.mm().as_raw() == mm.as_raw());
        assert!(MmapWriteGuard::lock(&mm, || false)?.mm().as_raw() == mm.as_raw());
        Ok(())
    }

    #[test]
    fn who_writes_has_the_lock_alone() -> Result {
        let mm = TestMemory::new(1)?.mm()?;
        let guard = MmapWriteGuard::lock(&mm, || false)?;
        assert!(MmapReadGuard::try_lock(&mm).is_none());
        drop(guard);
        assert!(MmapReadGuard::try_lock(&mm).is_some());
        Ok(())
    }
}
