// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `job/*`: the device works on the memory of processes, at their own addresses.

mod basic;
mod calls;
mod changes;
mod devices;
mod ends;
mod errors;
mod kinds;
mod list;
mod missing;
mod place;
mod processes;
mod program;
mod reclaim;
mod reuse;
mod together;

pub(super) use self::calls::endless;
use super::case::Case;

/// All cases of the group.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    (basic::CASES.iter())
        .chain(calls::CASES)
        .chain(errors::CASES)
        .chain(place::CASES)
        .chain(kinds::CASES)
        .chain(list::CASES)
        .chain(together::CASES)
        .chain(devices::CASES)
        .chain(processes::CASES)
        .chain(changes::CASES)
        .chain(reuse::CASES)
        .chain(ends::CASES)
        .chain(program::CASES)
        .chain(reclaim::CASES)
        .chain(missing::CASES)
}
