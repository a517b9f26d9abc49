// SPDX-License-Identifier: GPL-2.0-only

//! Migrations of pages: to the device, to system memory, and back by a CPU fault.
//!
//! The order is the same everywhere: collect the sources, allocate the destinations, have the
//! device copy, *check every entry*, and only then install the destinations. An entry that failed
//! loses its destination and stays where it is, so every error before that point is reversible,
//! and there is none after it.
//!
//! # Lock order
//!
//! mmap lock > folio locks (held by a `Migration`) > `Pages::records`, a queue's ring. Do not take the
//! mmap lock, access user memory or begin a `ZapGuard` while a `Migration` is alive: a `ZapGuard`
//! waits for tasks that zap PTEs, and those wait for the holds that exist.

mod batch_stats;
mod bring_back;
mod copy;
mod cpu_fault;
mod destinations;
pub(crate) mod evict;
mod hibernation;
mod migrate_args;
pub(crate) mod range;
mod readahead;
mod split;
mod tally;
mod to_device;
mod to_system;
mod worker;

pub(crate) use self::{
    hibernation::HibernationListener,
    migrate_args::MigrateArgs,
    tally::Tally, //
};
