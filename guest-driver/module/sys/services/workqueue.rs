// SPDX-License-Identifier: GPL-2.0-only

//! A workqueue of one's own, which is empty and idle when it goes.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::sys::bindings;
use core::ptr::NonNull;
use kernel::{
    alloc::Flags,
    prelude::*,
    workqueue::Queue, //
};

/// An unbound workqueue. What is spawned on it runs in process context and may sleep.
///
/// Dropping it waits for everything that was spawned, so it must not be dropped by such a thing.
///
/// # Examples
///
/// ```ignore
/// let queue = WorkQueue::new(c"example")?;
/// queue.spawn(|| pr_info!("may sleep here\n"))?;
/// // Returns when that has been said.
/// drop(queue);
/// ```
///
/// # Invariants
///
/// The pointer is a workqueue that this object owns.
pub(crate) struct WorkQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A workqueue may be used and destroyed on any thread.
unsafe impl Send for WorkQueue {}
// SAFETY: As above.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// Makes a workqueue.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        Self::with_flags(name, 0)
    }

    /// Makes a workqueue that rests while the system sleeps: before devices are put to sleep, what
    /// runs comes to its end, and nothing else begins until they are awake again.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn freezable(name: &'static CStr) -> Result<Self> {
        Self::with_flags(name, bindings::wq_flags_WQ_FREEZABLE)
    }

    fn with_flags(name: &'static CStr, flags: u32) -> Result<Self> {
        // SAFETY: The name is a valid string, which the kernel copies.
        let queue = unsafe { bindings::vhmm_workqueue_alloc(name.as_char_ptr(), flags) };
        // INVARIANT: The kernel just made it for us.
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// Runs `work` on the workqueue.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `work` is dropped.
    pub(crate) fn spawn(&self, work: impl FnOnce() + Send + 'static) -> Result {
        self.spawn_with(GFP_KERNEL, work)
    }

    /// As [`Self::spawn`], but reclaims no memory for it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `work` is dropped.
    pub(crate) fn spawn_now(&self, work: impl FnOnce() + Send + 'static) -> Result {
        self.spawn_with(GFP_NOWAIT | __GFP_NOWARN, work)
    }

    fn spawn_with(&self, flags: Flags, work: impl FnOnce() + Send + 'static) -> Result {
        // SAFETY: By the type invariant the workqueue exists while `self` does.
        let queue = unsafe { Queue::from_raw(self.0.as_ptr()) };
        queue.try_spawn(flags, work).map_err(|_| ENOMEM)
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; no work can be spawned any more.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

#[kunit_tests(virtio_hmm_workqueue)]
mod tests {
    use super::*;
    use kernel::sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    };

    #[test]
    fn everything_has_run_when_the_queue_is_gone() -> Result {
        let sum = Arc::new(Atomic::new(0u64), GFP_KERNEL)?;
        let queue = WorkQueue::new(c"virtio_hmm_kunit")?;
        for value in 1..=100 {
            let sum = sum.clone();
            queue.spawn(move || {
                sum.fetch_add(value, Relaxed);
            })?;
        }
        drop(queue);
        assert_eq!(sum.load(Relaxed), 5050);
        // The closures were dropped as well, and their references with them.
        assert!(Arc::into_unique_or_drop(sum).is_some());
        Ok(())
    }
}
