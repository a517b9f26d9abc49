// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `access/*`: whose memory a process may move, and when it is left alone.

mod permission;
mod stuck;

use super::support::prelude::*;

/// All cases of the group.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    permission::CASES.iter().chain(stuck::CASES)
}
