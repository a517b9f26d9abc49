// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `errors/*`: what callers and devices do wrong.

mod calls;
mod device;
mod loss;
mod timeouts;
mod vast;

use super::case::Case;

/// The cases of this group.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    [
        calls::CASES,
        vast::CASES,
        device::CASES,
        timeouts::CASES,
        loss::CASES,
    ]
    .into_iter()
    .flatten()
}
