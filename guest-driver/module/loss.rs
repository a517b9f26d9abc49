// SPDX-License-Identifier: GPL-2.0-only

//! Whether the device behind a pool is there, is lost and may come back, or is gone for good. `docs/loss.md` has the
//! states and what each party may rely on.
//!
//! # Lock order
//!
//! `Loss::state` and `Wakeup::state` are leaves.

mod state;
mod wakeup;

pub(crate) use self::{
    state::{
        Loss,
        LossCounts,
        Presence, //
    },
    wakeup::Wakeup, //
};
