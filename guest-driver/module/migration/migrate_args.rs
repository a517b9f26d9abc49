// SPDX-License-Identifier: GPL-2.0-only

//! What a request is to migrate, and for which process.

use crate::pool::{
    AccountId,
    Ticket, //
};
use hmm_uapi::{
    Direction,
    MigrateFlags,
    Trigger, //
};

/// What one page table maps, bytes: the least that is worth waking a worker for.
pub(super) const TABLE_BYTES: usize = 2 << 20;

/// What is to be migrated.
#[derive(Clone, Copy)]
pub(crate) struct MigrateArgs {
    pub(crate) direction: Direction,
    pub(crate) flags: MigrateFlags,
    /// Whether huge pages may be huge on the device.
    pub(crate) huge: bool,
    /// Whether no huge page is found for a destination, so that single ones are used.
    pub(crate) refuse_huge: bool,
    /// When the request began: what was wanted on the device before may be evicted for it.
    pub(crate) ticket: Ticket,
    /// What it is migrated for.
    pub(crate) trigger: Trigger,
    /// What is charged for device memory.
    pub(crate) account: AccountId,
}
