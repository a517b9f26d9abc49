// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How much memory page tables may take in all, so that a guest that maps without end harms only itself.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// There is no memory left for page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

/// What all contexts share.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// `limit` bytes for all page tables.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
        })
    }

    /// Bytes that page tables take now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that page tables may take.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    fn take(&self, bytes: u64) -> Result<(), Exhausted> {
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            });
        taken.map(|_| ()).map_err(|_| Exhausted)
    }

    fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one page table has taken of the budget; dropping it gives everything back.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Charge {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Bytes that were taken.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Exhausted> {
        self.budget.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back what was taken before.
    pub(super) fn give(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.budget.give(bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}
