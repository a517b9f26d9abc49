// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `loss/*`: the device is lost while memory is on it, and comes back, or does not.
//!
//! What these cases do with the device needs nothing of the host: the device leaves a batch unanswered, so the driver
//! gives it up, and it comes back when the driver is bound anew. Its process lives on with its memory.

mod access;
mod beside;
mod contents;
mod deeds;
mod failure;
mod killed;
mod matrix;
mod moment;
mod programs;
mod refused;
mod resets;
mod session;
mod told;
mod trial;
mod unload;

use super::case::Case;

/// `restart/*`: the same with devices whose process dies, for guests whose host starts it again. They run only when they
/// are asked for by their whole name.
pub(super) fn restart_cases() -> impl Iterator<Item = &'static Case> {
    [
        killed::CASES,
        programs::CASES,
        deeds::CASES,
        matrix::KILLED,
        matrix::KILLED_TWICE,
        matrix::KILLED_DURING_RESTART,
        unload::KILLED,
    ]
    .into_iter()
    .flatten()
}

/// The cases of this group.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    [
        access::CASES,
        refused::CASES,
        resets::CASES,
        session::CASES,
        told::CASES,
        matrix::HUNG,
        matrix::HUNG_TWICE,
        matrix::OTHER_CONTENTS,
        matrix::NOTHING_RETURNS,
        unload::CASES,
    ]
    .into_iter()
    .flatten()
}
