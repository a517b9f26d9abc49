// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What threads know of a queue beside its ring.

use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// What queues know of each other.
#[derive(Debug)]
pub struct QueueState {
    broken: AtomicBool,
    executing: AtomicBool,
    restarted: AtomicBool,
    /// The fence that its worker waits for; 0 for none.
    pub(crate) ticket: AtomicU64,
}

impl QueueState {
    /// A queue that nothing is known of.
    pub fn new() -> Self {
        Self {
            broken: AtomicBool::new(false),
            executing: AtomicBool::new(false),
            restarted: AtomicBool::new(false),
            ticket: AtomicU64::new(0),
        }
    }

    /// Whether it made no sense and is not served.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Marks it broken; whether it was not.
    pub fn set_broken(&self) -> bool {
        !self.broken.swap(true, Ordering::Relaxed)
    }

    /// Notes whether the chain that was popped last is still executed. Only call it with the ring locked, or when the
    /// chain is complete.
    pub fn set_executing(&self, executing: bool) {
        self.executing.store(executing, Ordering::Release);
    }

    /// Whether the queue was stopped since the last call.
    pub fn take_restarted(&self) -> bool {
        self.restarted.swap(false, Ordering::Relaxed)
    }

    /// The queue was stopped, and its worker has left the gate since.
    pub fn restart(&self) {
        self.broken.store(false, Ordering::Relaxed);
        self.executing.store(false, Ordering::Release);
        self.restarted.store(true, Ordering::Relaxed);
    }

    /// Of `taken` chains that were taken from the ring, how many are complete. Call it with the ring locked.
    pub(crate) fn complete_of(&self, taken: u16) -> u16 {
        taken.wrapping_sub(u16::from(self.executing.load(Ordering::Acquire)))
    }
}

impl Default for QueueState {
    fn default() -> Self {
        Self::new()
    }
}
