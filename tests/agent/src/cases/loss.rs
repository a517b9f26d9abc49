// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `loss/*`: the device is lost while memory is on it, and comes back, or does not.
//!
//! What these cases do with the device needs nothing of the host: the device leaves a batch unanswered, so the driver
//! gives it up, and it comes back when the driver is bound anew. Its process lives on with its memory.

mod access;
mod jobs;
mod refused;
mod resets;
mod trial;

use super::case::Case;

/// The cases of this group.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    [access::CASES, refused::CASES, jobs::CASES, resets::CASES]
        .into_iter()
        .flatten()
}
