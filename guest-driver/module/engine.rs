// SPDX-License-Identifier: GPL-2.0-only

//! What the migration engine of a device keeps between requests: buffers and scratch space, workers
//! and how many of them do the same at once, what was learned. The migrations themselves are in
//! `migration`.

mod hibernation;
mod learned;
mod scratch;
mod splits;
mod state;
mod stragglers;
mod turns;

pub(crate) use self::{
    scratch::Scratch,
    splits::Splits,
    state::{
        Engine,
        BATCH_PAGES, //
    },
    stragglers::Stragglers, //
};
