// SPDX-License-Identifier: GPL-2.0-only

//! Descriptors by which a process is told of events.
//!
//! C header: [`include/linux/eventfd.h`](srctree/include/linux/eventfd.h)

use crate::sys::bindings;
use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    prelude::*, //
};

/// An eventfd of a process.
///
/// # Invariants
///
/// The pointer is valid, and this object owns a reference to it.
pub(crate) struct EventFd(NonNull<bindings::eventfd_ctx>);

// SAFETY: The reference may be used and dropped on any thread.
unsafe impl Send for EventFd {}
// SAFETY: As above; the counter has a lock of its own.
unsafe impl Sync for EventFd {}

impl EventFd {
    /// The eventfd of a descriptor of the calling process. It stays when the descriptor is closed.
    ///
    /// # Errors
    ///
    /// `EBADF` there is no such descriptor, `EINVAL` it is no eventfd.
    pub(crate) fn of_descriptor(descriptor: i32) -> Result<Self> {
        // SAFETY: Has no requirements.
        let context = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(descriptor) })?;
        // INVARIANT: That took a reference.
        NonNull::new(context).map(Self).ok_or(EBADF)
    }

    /// Adds 1 to its counter, which wakes those who wait for it. Does not sleep.
    pub(crate) fn signal(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::eventfd_signal_mask(self.0.as_ptr(), 0) };
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::eventfd_ctx_put(self.0.as_ptr()) };
    }
}
