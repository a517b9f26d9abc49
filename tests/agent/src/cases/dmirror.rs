// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `dmirror/*`: the nodes that speak the interface of the kernel's `test_hmm`. Upstream's own cases run by
//! `cargo xtask suite hmm-tests`; these have what those leave out.

mod access;
mod calls;
mod devices;
mod life;
mod look;
mod random_calls;

use crate::cases::case::Case;

pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    (calls::CASES.iter())
        .chain(look::CASES)
        .chain(access::CASES)
        .chain(devices::CASES)
        .chain(random_calls::CASES)
        .chain(life::CASES)
}
