// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Counters: relaxed atomics, which no other memory is ordered by.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows and that any thread may add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that only grows and that one thread at a time adds to, the worker of its queue. So adding needs no locked
/// instruction; and a reset, which comes from another thread, does not write what the worker writes.
#[derive(Debug, Default)]
pub struct WorkerCounter {
    value: AtomicU64,
    at_reset: AtomicU64,
}

impl WorkerCounter {
    /// Adds `value`. Call it from the worker of the queue only.
    pub fn add(&self, value: u64) {
        let before = self.value.load(Ordering::Relaxed);
        self.value
            .store(before.wrapping_add(value), Ordering::Relaxed);
    }

    /// The number since the last reset.
    pub fn get(&self) -> u64 {
        let value = self.value.load(Ordering::Relaxed);
        value.saturating_sub(self.at_reset.load(Ordering::Relaxed))
    }

    pub(super) fn reset(&self) {
        let value = self.value.load(Ordering::Relaxed);
        self.at_reset.store(value, Ordering::Relaxed);
    }
}

impl Counter {
    /// Adds `value`.
    pub fn add(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::WorkerCounter;

    #[test]
    fn a_reset_loses_nothing_that_comes_after_it() {
        let counter = WorkerCounter::default();
        counter.add(3);
        counter.reset();
        assert_eq!(counter.get(), 0);
        // A worker that was adding meanwhile stores what it had read before.
        counter.add(2);
        assert_eq!(counter.get(), 2);
    }
}
