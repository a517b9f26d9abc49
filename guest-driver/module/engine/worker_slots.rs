// SPDX-License-Identifier: GPL-2.0-only

//! Bounds how many workers do the same at once.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::Full,
            Atomic, //
        },
        Arc, //
    }, //
};

/// Hands out a bounded number of turns.
pub(crate) struct WorkerSlots {
    taken: Arc<Atomic<usize>>,
    most: usize,
}

impl WorkerSlots {
    /// At most `most` turns at once.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(most: usize) -> Result<Self> {
        let taken = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        Ok(Self { taken, most })
    }

    /// A turn; `None` if all are taken.
    pub(crate) fn take(&self) -> Option<WorkerSlot> {
        let turn = WorkerSlot(self.taken.clone());
        // Dropping the turn gives it back, also if it was one too many.
        (self.taken.fetch_add(1, Full) < self.most).then_some(turn)
    }
}

/// A turn, which ends when it is dropped.
pub(crate) struct WorkerSlot(Arc<Atomic<usize>>);

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Full);
    }
}
