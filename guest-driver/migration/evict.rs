// SPDX-License-Identifier: GPL-2.0-only

//! Brings device pages home without being told whose they are.

use super::{
    copy::Copying,
    DeviceMemory, //
};
use crate::{
    link::{
        Lane,
        Link, //
    },
    sys::{
        migrate::{
            Migration,
            Source, //
        },
        page::Destination, //
    }, //
};
use core::ops::Range;
use hmm_protocol::Op;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// How long to wait before pages that could not be moved are tried again.
const PAUSE: Delta = Delta::from_millis(5);
/// After so long without a page that moved the log is told.
const COMPLAIN_AFTER: Delta = Delta::from_millis(10_000);

/// Brings all pages home. No page may be moved to the device meanwhile. Returns when none is left,
/// when the device is dead (then the rest is lost), or when no page moved for `patience`.
///
/// A page can be kept by whoever has locked or referenced it. Its holder may take any time, but
/// needs nothing from us, so without `patience` this waits.
pub(crate) fn all(memory: &DeviceMemory, link: &Link, patience: Option<Delta>) {
    kernel::task::might_sleep();
    let mut complained = false;
    let mut last_progress = Instant::<Monotonic>::now();
    loop {
        let mut moved = 0;
        let mut block = 0;
        while let Some((pages, next)) = memory.ops().next_block_in_use(block) {
            if link.is_dead() {
                return;
            }
            moved += evict(memory, link, pages);
            block = next;
        }
        if memory.ops().resident_bytes() == 0 {
            return;
        }
        if moved > 0 {
            last_progress = Instant::now();
            continue;
        }
        let idle = last_progress.elapsed();
        if patience.is_some_and(|patience| idle > patience) {
            return;
        }
        if idle > COMPLAIN_AFTER && !complained {
            pr_warn!(
                "waiting for {} bytes on the device that are in use\n",
                memory.ops().resident_bytes()
            );
            complained = true;
        }
        fsleep(PAUSE);
    }
}

/// Brings pages of one block home; returns how many.
fn evict(memory: &DeviceMemory, link: &Link, pages: Range<usize>) -> usize {
    let lease = memory.ops().server().evict_buffers.lease();
    let Ok(mut migration) = Migration::by_pfn(memory, pages, lease) else {
        return 0;
    };
    migration.for_each_source(|visit| {
        // Here the kernel splits no huge page, so one that finds no huge page stays for now.
        let destination = match visit.source() {
            Source::Page(_) => Destination::system(),
            Source::HugePage(_) => Destination::huge_system(),
            Source::Skipped | Source::Hole | Source::HugeHole => return,
        };
        if let Ok(destination) = destination {
            visit.give(destination);
        }
    });
    let copying = Copying::start(memory, link, Lane::Bulk, Op::ToSystem, migration);
    let (migration, _failed) = copying.finish();
    let installed = migration.install();
    let moved = installed.moved();
    drop(installed);
    let bytes = (moved * PAGE_SIZE) as u64;
    link.stats().bytes_to_system.add(bytes);
    link.stats().bytes_by_eviction.add(bytes);
    moved
}
