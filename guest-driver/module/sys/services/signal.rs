// SPDX-License-Identifier: GPL-2.0-only

//! Signals of the calling task.
//!
//! C header: [`include/linux/sched/signal.h`](srctree/include/linux/sched/signal.h)

use crate::sys::bindings;

/// Whether a signal waits for the calling task.
///
/// Unlike [`kernel::task::Task::signal_pending`] this is false while there is only work that the
/// task is to do for itself before it returns to user space, such as the completions of io_uring,
/// and that can wait.
pub(crate) fn signal_waits() -> bool {
    // SAFETY: Has no requirements.
    unsafe { bindings::vhmm_signal_waits() }
}
