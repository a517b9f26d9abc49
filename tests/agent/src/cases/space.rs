// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `space/*`: the device's page tables follow those of the process, also when the device does something wrong.

mod answers;
mod follow;
mod going;

use super::case::Case;

/// The cases of this group.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    [follow::CASES, answers::CASES, going::CASES]
        .into_iter()
        .flatten()
}
