// SPDX-License-Identifier: GPL-2.0-only

//! The engine's parts together.

use super::{
    hibernation::Hibernation,
    splits::Splits,
    tuning::Tuning,
    walk_buffers::WalkBuffersPool,
    worker_slots::WorkerSlots, //
};
use crate::{
    link::{
        BATCH_ENTRIES,
        BULK_BATCHES, //
    },
    sys::{
        device_memory::page::HUGE_PAGES,
        migrate::BufferPool,
        services::workqueue::WorkQueue, //
    }, //
};
use hmm_logic::BLOCK_PAGES;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};

/// Pages of the largest batch.
pub(crate) const BATCH_PAGES: usize = BATCH_ENTRIES;
/// CPU faults that are served at once; others wait for one of them.
const FAULTS: usize = 16;
/// Blocks that are evicted at once.
const EVICTIONS: usize = 2;
/// Ranges that are migrated back at once before the kernel tracks writes to them.
const RETURNS: usize = 1;
/// Readers for which pages are read ahead at once.
const READAHEADS: usize = 4;
/// Workers that wait at once for tasks that zap PTEs.
const SETTLES: usize = 4;

/// See the module.
#[pin_data]
pub(crate) struct Engine {
    /// Runs what must not, or need not, run in the task that asks for it. Dropped first: what was
    /// spawned has ended before the rest goes.
    pub(crate) workers: WorkQueue,
    /// For CPU faults, which must not allocate.
    #[pin]
    pub(crate) fault_buffers: BufferPool,
    /// For requests.
    #[pin]
    pub(crate) bulk_buffers: BufferPool,
    /// For evictions, which run when memory may be short.
    #[pin]
    pub(crate) evict_buffers: BufferPool,
    /// For what is migrated back before the kernel tracks writes to it. Its holder waits for nothing
    /// but the device.
    #[pin]
    pub(crate) return_buffers: BufferPool,
    #[pin]
    pub(crate) tuning: Tuning,
    #[pin]
    pub(crate) scratches: WalkBuffersPool,
    #[pin]
    pub(crate) hibernation: Hibernation,
    pub(crate) readaheads: WorkerSlots,
    pub(crate) settles: WorkerSlots,
    pub(crate) splits: Arc<Splits>,
    /// Evictions that make room before a request needs it.
    pub(crate) background_evictions: WorkerSlots,
}

impl Engine {
    /// An engine for a device that copies at most `max_batch_bytes` with a batch.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(max_batch_bytes: u64) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let most = usize::try_from(max_batch_bytes)?.min(BATCH_PAGES * PAGE_SIZE);
            Ok(try_pin_init!(Self {
                workers: WorkQueue::new(c"virtio_hmm")?,
                fault_buffers <- BufferPool::new(FAULTS, HUGE_PAGES, false),
                // There are as many leases as the link has requests for batches.
                bulk_buffers <- BufferPool::new(BULK_BATCHES - EVICTIONS - RETURNS, BATCH_PAGES, false),
                evict_buffers <- BufferPool::new(EVICTIONS, BLOCK_PAGES, true),
                return_buffers <- BufferPool::new(RETURNS, BLOCK_PAGES, true),
                tuning <- Tuning::new(most),
                scratches <- WalkBuffersPool::new(),
                hibernation <- Hibernation::new(),
                readaheads: WorkerSlots::new(READAHEADS)?,
                settles: WorkerSlots::new(SETTLES)?,
                splits: Splits::new()?,
                background_evictions: WorkerSlots::new(1)?,
            }? Error))
        })
    }
}
