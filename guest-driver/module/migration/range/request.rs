// SPDX-License-Identifier: GPL-2.0-only

//! What all parts of a walk refer to.

use super::frontier::Frontier;
use crate::{
    device::Device,
    migration::migrate_args::MigrateArgs,
    policy::WatchedSpace,
    sys::address_space::{
        process::Process,
        snapshot::Snapshot, //
    }, //
};
use kernel::{
    mm::MmWithUser,
    sync::atomic::AtomicFlag, //
};

/// What is to be done, and with what.
pub(super) struct Request<'a> {
    pub(super) device: &'a Device,
    pub(super) process: &'a Process,
    pub(super) mm: &'a MmWithUser,
    /// Whether a thread of the kernel gives up to wait for the mmap lock.
    pub(super) gives_up: &'a dyn Fn() -> bool,
    /// What is known of the process.
    pub(super) known: Option<&'a WatchedSpace>,
    pub(super) args: MigrateArgs,
    pub(super) snapshot: &'a Snapshot,
    /// What is left to take of the request.
    pub(super) frontier: &'a Frontier,
    /// Set when device memory is short.
    pub(super) was_short: &'a AtomicFlag,
}
