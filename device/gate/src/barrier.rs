// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The barrier between workers and the threads that change the state they work on.
//!
//! A worker holds the gate's read side while it touches guest memory: it walks a ring, copies, completes. Stopping a
//! queue, changing the memory table and losing the front end take the write side, so that when they return, no worker
//! touches guest memory any more, and none starts before it has seen what changed. Writers go first: a worker that
//! comes back for more waits behind them.
//!
//! Workers read `waiting` all the time and writers change it rarely, so it has a cache line of its own.

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicUsize, Ordering, ReadGuard, RwLock};

/// The gate, and what is behind it: the table of the guest's memory.
#[derive(Debug)]
pub struct Gate<T> {
    behind: RwLock<T>,
    waiting: CachePadded<AtomicUsize>,
}

impl<T> Gate<T> {
    /// A gate in front of `behind`.
    pub fn new(behind: T) -> Self {
        Self {
            behind: RwLock::new(behind),
            waiting: CachePadded::new(AtomicUsize::new(0)),
        }
    }

    /// Lets a worker in; it may touch guest memory until it drops what this returns. Take no second one meanwhile.
    pub fn enter(&self) -> ReadGuard<'_, T> {
        self.behind.read()
    }

    /// Whether a thread waits for the workers to leave: finish what must be finished and start nothing new.
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != 0
    }

    /// Returns when every worker has left at least once since the call.
    pub fn quiesce(&self) {
        self.exclusively(|_| ());
    }

    /// Calls `act` while no worker is inside.
    pub fn while_quiet<R>(&self, act: impl FnOnce() -> R) -> R {
        self.exclusively(|_| act())
    }

    /// Changes what is behind the gate while no worker is inside. When this returns, no worker uses what it saw there before:
    /// a translation that `change` took away is not in use any more, also in the middle of a job.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        self.exclusively(change)
    }

    /// Replaces what is behind the gate; what was there is unused when this returns, and dropped.
    pub fn replace(&self, behind: T) {
        let before = self.exclusively(|current| std::mem::replace(current, behind));
        // Outside: to unmap a guest's memory takes a while.
        drop(before);
    }

    fn exclusively<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut behind = self.behind.write();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        change(&mut behind)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU64, Ordering},
        thread,
    };

    use super::Gate;

    #[test]
    fn no_worker_is_inside_with_an_old_view_after_quiesce() {
        let gate = Gate::new(());
        let open = AtomicBool::new(true);
        let inside = AtomicU64::new(0);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Acquire) {
                        let guard = gate.enter();
                        if open.load(Ordering::Acquire) {
                            inside.fetch_add(1, Ordering::AcqRel);
                            std::hint::spin_loop();
                            inside.fetch_sub(1, Ordering::AcqRel);
                        }
                        drop(guard);
                    }
                });
            }
            for _ in 0..2000 {
                open.store(false, Ordering::Release);
                gate.quiesce();
                assert_eq!(inside.load(Ordering::Acquire), 0);
                open.store(true, Ordering::Release);
            }
            done.store(true, Ordering::Release);
        });
    }
}
