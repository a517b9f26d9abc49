// SPDX-License-Identifier: GPL-2.0-only

//! The thread that starts the device anew for those that must not do it themselves, since memory is
//! allocated for it.

use super::{
    state::Link,
    why::Why, //
};
use kernel::time::{
    delay::fsleep,
    Delta, //
};

/// How often a task looks whether the device is reset by now.
const POLL: Delta = Delta::from_micros(100);

impl Link {
    /// Has the device started anew, unless it was reset since `resets`, when it was running, and waits
    /// until it is reset. Does not allocate, and waits for no task that does.
    pub(super) fn repair(&self, resets: u32, why: Why) {
        let mut wanted = self.repairs.wanted.lock();
        if (wanted.since).is_none_or(|(other, _)| other < resets) {
            wanted.since = Some((resets, why));
        }
        drop(wanted);
        self.repairs.asked.notify_all();
        while self.resets() == resets {
            fsleep(POLL);
        }
    }

    /// Serves [`Link::repair`] until [`Link::end_repairs`]. For a thread of its own.
    pub(crate) fn serve_repairs(&self) {
        loop {
            let mut wanted = self.repairs.wanted.lock();
            let (since, why) = loop {
                if let Some(since) = wanted.since.take() {
                    break since;
                }
                if wanted.end {
                    return;
                }
                // A thread of the kernel gets no signals. This does not count as busy.
                let _ = self.repairs.asked.wait_interruptible(&mut wanted);
            };
            drop(wanted);
            self.reset_since(since, why);
        }
    }

    /// Ends [`Link::serve_repairs`]. Nothing is asked for any more.
    pub(crate) fn end_repairs(&self) {
        self.repairs.wanted.lock().end = true;
        self.repairs.asked.notify_all();
    }

    /// Starts the device anew unless it was reset since.
    fn reset_since(&self, resets: u32, why: Why) {
        let guard = self.recovery.lock();
        if self.resets() == resets && !self.is_dead() {
            self.recover(why);
        }
        drop(guard);
    }
}
