// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `migrate/*`: memory goes to the device and back by ioctl.

mod concurrent;
mod large_ranges;
mod parts;
mod roundtrip;
mod skipped;

use super::case::Case;

/// The cases of this group.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    [
        roundtrip::CASES,
        parts::CASES,
        skipped::CASES,
        concurrent::CASES,
        large_ranges::CASES,
    ]
    .into_iter()
    .flatten()
}
