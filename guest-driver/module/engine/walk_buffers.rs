// SPDX-License-Identifier: GPL-2.0-only

//! WalkBuffers space of walks. To allocate it takes as long as to migrate a few pages, so it is kept.

use super::retry_runs::RetryRuns;
use crate::link::BATCH_ENTRIES;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};

/// Batches of a walk that exist at once.
const DEPTH: usize = 2;
/// How many scratch spaces are kept.
const KEPT: usize = 4;

/// WalkBuffers space of one walk.
pub(crate) struct WalkBuffers {
    /// A mark for each page of a batch, for each batch.
    pub(crate) marks: KVec<KVVec<bool>>,
    pub(crate) snapshot: KVVec<usize>,
    pub(crate) stragglers: RetryRuns,
}

impl WalkBuffers {
    fn new() -> Result<Self> {
        let mut marks = KVec::with_capacity(DEPTH, GFP_KERNEL)?;
        for _ in 0..DEPTH {
            marks.push(
                KVVec::from_elem(false, BATCH_ENTRIES, GFP_KERNEL)?,
                GFP_KERNEL,
            )?;
        }
        Ok(Self {
            marks,
            snapshot: KVVec::from_elem(0, BATCH_ENTRIES, GFP_KERNEL)?,
            stragglers: RetryRuns::new()?,
        })
    }
}

/// WalkBuffers spaces that are free.
#[pin_data]
pub(crate) struct WalkBuffersPool {
    #[pin]
    kept: SpinLock<KVec<WalkBuffers>>,
}

impl WalkBuffersPool {
    /// None is kept yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let kept = KVec::with_capacity(KEPT, GFP_KERNEL)?;
            Ok(try_pin_init!(Self {
                kept <- new_spinlock!(kept, "engine::WalkBuffersPool::kept"),
            }? Error))
        })
    }

    /// Calls `work` with scratch space of its own.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: `work` was not called. What `work` returns is within the result.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut WalkBuffers) -> T) -> Result<T> {
        let kept = self.kept.lock().pop();
        let mut scratch = kept.map_or_else(WalkBuffers::new, Ok)?;
        let result = work(&mut scratch);
        // One that there is no room for goes, after the lock.
        let surplus = self.kept.lock().push_within_capacity(scratch);
        drop(surplus);
        Ok(result)
    }
}
