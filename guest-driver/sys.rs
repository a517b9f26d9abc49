// SPDX-License-Identifier: GPL-2.0-only

//! What Rust in the kernel lacks, as safe interfaces: the virtio bus and its queues, device-private
//! memory, `migrate_vma`, snapshots of an address space, a sleepable gate, reserves,
//! workqueues.
//!
//! This is the only place of the driver with `unsafe` code. Nothing here knows this driver.

pub(crate) mod anon_vma;
mod bindings;
pub(crate) mod clear_hold;
pub(crate) mod cpu;
pub(crate) mod exclusive;
pub(crate) mod gate;
mod interval;
#[cfg(CONFIG_KUNIT)]
mod kunit;
pub(crate) mod memory_region;
pub(crate) mod migrate;
pub(crate) mod mm;
pub(crate) mod mmap_lock;
pub(crate) mod module_hold;
pub(crate) mod node;
pub(crate) mod page;
pub(crate) mod page_stock;
pub(crate) mod pagemap;
pub(crate) mod request;
pub(crate) mod reserve;
pub(crate) mod signal;
pub(crate) mod snapshot;
pub(crate) mod trace;
pub(crate) mod virtio;
pub(crate) mod virtqueue;
pub(crate) mod watch;
pub(crate) mod workqueue;
