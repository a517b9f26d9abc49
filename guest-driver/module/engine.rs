// SPDX-License-Identifier: GPL-2.0-only

//! What the migration engine of a device keeps between requests: buffers and scratch space, workers
//! and how many of them do the same at once, what was learned. The migrations themselves are in
//! `migration`.

mod hibernation;
mod retry_runs;
mod splits;
mod state;
mod tuning;
mod walk_buffers;
mod worker_slots;

pub(crate) use self::{
    retry_runs::RetryRuns, //
    splits::Splits,
    state::{
        Engine,
        BATCH_PAGES, //
    },
    walk_buffers::WalkBuffers,
};
