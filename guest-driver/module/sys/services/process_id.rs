// SPDX-License-Identifier: GPL-2.0-only

//! What tells processes from each other, and which process has begun another.
//!
//! C headers: [`include/linux/pid.h`](srctree/include/linux/pid.h),
//! [`include/trace/events/sched.h`](srctree/include/trace/events/sched.h)

use crate::sys::bindings;
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*,
    sync::Arc,
    task::Task, //
};

/// A process with all its threads, whatever programs it executes. Two with the same number can be
/// different only if one of them has ended.
///
/// # Invariants
///
/// The pointer is valid, and this object owns a reference to it.
pub(crate) struct ProcessId(NonNull<bindings::pid>);

// SAFETY: The reference may be used and dropped on any thread.
unsafe impl Send for ProcessId {}
// SAFETY: As above.
unsafe impl Sync for ProcessId {}

impl ProcessId {
    /// The process of a task. Does not sleep.
    ///
    /// # Errors
    ///
    /// `ESRCH`: it has ended.
    pub(crate) fn of(task: &Task) -> Result<Self> {
        // SAFETY: The task is valid.
        let process = unsafe { bindings::vhmm_task_process(task.as_ptr()) };
        // INVARIANT: That took a reference.
        NonNull::new(process).map(Self).ok_or(ESRCH)
    }

    /// The number in the first namespace.
    pub(crate) fn number(&self) -> usize {
        // SAFETY: By the type invariant.
        (unsafe { bindings::vhmm_process_number(self.0.as_ptr()) }) as usize
    }

    /// Whether it has ended, and its parent knows.
    pub(crate) fn has_ended(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_process_has_ended(self.0.as_ptr()) }
    }
}

impl PartialEq for ProcessId {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for ProcessId {}

impl Drop for ProcessId {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::put_pid(self.0.as_ptr()) };
    }
}

/// What is told of processes that begin others.
pub(crate) trait ForkListener: Send + Sync + 'static {
    /// `parent` begins `child`, which has not run yet. May be another thread of the same process.
    /// Must not sleep.
    ///
    /// # Errors
    ///
    /// If there is one the child is killed before it runs.
    fn forked(&self, parent: &Task, child: &Task) -> Result;
}

/// Tells a listener of all processes that begin others.
///
/// # Invariants
///
/// [`Self::forked`] is registered with the address of the listener.
pub(crate) struct ForkWatch<L: ForkListener>(Arc<L>);

impl<L: ForkListener> ForkWatch<L> {
    /// Begins to tell `listener`.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` the kernel does not tell, `ENOMEM`.
    pub(crate) fn new(listener: Arc<L>) -> Result<Self> {
        let data = Self::data(&listener);
        // SAFETY: The listener lives until drop, which unregisters the function first.
        to_result(unsafe { bindings::vhmm_fork_watch_begin(Some(Self::forked), data) })?;
        // INVARIANT: It was just registered.
        Ok(Self(listener))
    }

    fn data(listener: &Arc<L>) -> *mut c_void {
        core::ptr::from_ref::<L>(listener).cast_mut().cast()
    }

    /// Called by the kernel.
    ///
    /// # Safety
    ///
    /// `data` must be the address of an `L`; the tasks must be valid.
    unsafe extern "C" fn forked(
        data: *mut c_void,
        parent: *mut bindings::task_struct,
        child: *mut bindings::task_struct,
    ) {
        // SAFETY: By the requirements. `Task` is a transparent wrapper of the structure.
        let (listener, parent, child) = unsafe {
            let listener = &*data.cast::<L>();
            (listener, &*parent.cast::<Task>(), &*child.cast::<Task>())
        };
        if listener.forked(parent, child).is_err() {
            // SAFETY: The task is valid.
            unsafe { bindings::vhmm_task_kill(child.as_ptr()) };
        }
    }
}

impl<L: ForkListener> Drop for ForkWatch<L> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. The function waits until no call is under way.
        unsafe { bindings::vhmm_fork_watch_end(Some(Self::forked), Self::data(&self.0)) };
    }
}
