// SPDX-License-Identifier: GPL-2.0-only

//! The requests of the MMU queue.

use super::request_pool::{
    request_pool,
    RequestPool, //
};
use hmm_protocol::{
    JobLimits,
    COMPLETION_BYTES,
    MAP_ENTRY_BYTES,
    MAP_HEADER_BYTES, //
};
use kernel::prelude::*;

/// Entries of the largest batch: a page each of 2 MiB, and the answer to a page fault.
const MAP_ENTRIES: usize = 513;
/// Batches with mappings at once.
const MAPS: usize = 6;
/// Batches of a single entry at once.
const UNMAPS: usize = 10;
/// Requests of the queue.
pub(super) const MMU_REQUESTS: usize = MAPS + UNMAPS;
/// The requests of the MMU queue.
#[pin_data]
pub(super) struct Mmu {
    #[pin]
    pub(super) maps: RequestPool,
    /// For what takes away, which does not wait behind what gives.
    #[pin]
    pub(super) unmaps: RequestPool,
    /// Entries of a batch, at most.
    pub(super) entries: usize,
}

impl Mmu {
    /// Prepares the requests; without contexts there is hardly any.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(jobs: Option<&JobLimits>) -> impl PinInit<Self, Error> {
        let entries = jobs.map_or(1, |jobs| MAP_ENTRIES.min(jobs.max_map_entries as usize));
        let maps = if jobs.is_some() { MAPS } else { 1 };
        let bytes = move |entries| MAP_HEADER_BYTES + entries * MAP_ENTRY_BYTES;
        try_pin_init!(Self {
            maps <- request_pool(maps, bytes(entries), COMPLETION_BYTES),
            unmaps <- request_pool(UNMAPS, bytes(1), COMPLETION_BYTES),
            entries,
        }? Error)
    }
}
