// SPDX-License-Identifier: GPL-2.0-only

//! A counter that only grows.

use kernel::sync::atomic::{
    ordering::Relaxed,
    Atomic, //
};

/// A counter that only grows.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    /// Starts at zero.
    pub(super) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Adds to the counter.
    pub(crate) fn add(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }

    /// The counter's value.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
