// SPDX-License-Identifier: GPL-2.0-only

//! Evicts device pages of any process: all when the device goes, or some when
//! requests need its memory.
//!
//! Never call this with an mmap lock held, while a migration is alive, or in a CPU fault.

mod huge;
mod placements;

use self::placements::{
    Placements,
    Site, //
};
use super::{
    copy::{
        install,
        Copying, //
    },
    destinations::SystemDestinations, //
};
use crate::{
    device::Device,
    pool::Ticket,
    stats::Stage,
    sys::{
        device_memory::placement::Placement,
        migrate::{
            Migration,
            Source, //
        },
        services::{
            signal::signal_waits,
            trace, //
        }, //
    }, //
};
use core::ops::Range;
use hmm_logic::{
    KeptPages,
    BLOCK_PAGES, //
};
use hmm_protocol::Op;
use hmm_uapi::Trigger;
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

/// Evicts all pages. No page may be migrated to the device meanwhile. Returns when none is left,
/// when the device is dead (then the rest is lost), or when no page moved for `patience`.
///
/// A task that has locked or referenced a page keeps it. It may take any time, but needs nothing
/// from this driver, so without `patience` this waits.
pub(crate) fn all(device: &Device, patience: Option<Delta>) {
    kernel::task::might_sleep();
    let mut complained = false;
    let mut last_progress = Instant::<Monotonic>::now();
    loop {
        let mut moved = 0;
        let mut block = 0;
        while let Some((pages, next)) = device.pages().next_block_in_use(block) {
            if device.link().is_dead() {
                return;
            }
            moved += evict(device, Trigger::Unbind, pages, &KeptPages::default());
            block = next;
        }
        if device.pages().resident_bytes() == 0 {
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
                device.pages().resident_bytes()
            );
            complained = true;
        }
        fsleep(PAUSE);
    }
}

/// Victims after which the device is asked again which blocks its jobs access.
const VICTIMS: usize = 16;

/// Blocks that jobs of the device accessed lately count as wanted by the last request before `before`: they are
/// the last to be evicted, and are evicted nevertheless if nothing else is left.
fn note_accesses(device: &Device, before: Ticket) {
    let pool = device.pages();
    device
        .link()
        .take_accessed(|block| pool.touch(block * BLOCK_PAGES, before.previous()));
}

/// Evicts pages that no request has wanted on the device since `before`, until `pages` are available.
/// Returns whether they are; another request may take them at once.
pub(crate) fn make_room(device: &Device, pages: usize, before: Ticket) -> bool {
    kernel::task::might_sleep();
    let pool = device.pages();
    // Busy pages make a block fail, and then the next one is tried.
    let mut failures = pool.blocks();
    let mut victims = 0;
    while pool.available_pages() < pages {
        if victims % VICTIMS == 0 {
            note_accesses(device, before);
        }
        victims += 1;
        if failures == 0 || device.link().is_stopping() || signal_waits() {
            return false;
        }
        let Some(victim) = pool.take_victim(before) else {
            return false;
        };
        if evict(device, Trigger::Eviction, victim.pages(), &victim.kept()) == 0 {
            failures -= 1;
        }
    }
    true
}

/// Evicts about so many pages of any process that no request has wanted on the device since `before`.
/// Returns how many migrated.
pub(crate) fn some(device: &Device, pages: usize, before: Ticket) -> usize {
    kernel::task::might_sleep();
    let pool = device.pages();
    note_accesses(device, before);
    let (mut moved, mut failures) = (0, pool.blocks());
    while moved < pages && failures > 0 && !device.link().is_stopping() && !signal_waits() {
        let Some(victim) = pool.take_victim(before) else {
            break;
        };
        match evict(device, Trigger::Eviction, victim.pages(), &victim.kept()) {
            0 => failures -= 1,
            count => moved += count,
        }
    }
    moved
}

/// For when a request had to make room: if little is left, evicts in the background what no request
/// has wanted since `before`, so that the next request finds some. As long as all requests fit,
/// nothing is evicted.
pub(super) fn in_background(device: &Device, before: Ticket) {
    if !device.pages().is_below_low_watermark() {
        return;
    }
    let Some(turn) = device.engine().background_evictions.take() else {
        return;
    };
    let pool = device.pool().clone();
    // Without memory for it, the next request makes its own room.
    let _ = device.engine().workers.spawn(move || {
        if let Some(device) = pool.attached() {
            make_room(&device, device.pages().high_watermark(), before);
        }
        drop(turn);
    });
}

/// Evicts the pages of one block but those that are `kept`; returns how many migrated. None may be
/// allocated meanwhile.
fn evict(device: &Device, trigger: Trigger, pages: Range<usize>, kept: &KeptPages) -> usize {
    let device_address = (pages.start * PAGE_SIZE) as u64;
    let moved = huge::evict(device, trigger, pages.start, kept)
        + evict_single(device, trigger, pages, kept);
    let bytes = (moved * PAGE_SIZE) as u64;
    device.stats().bytes_to_system.add(bytes);
    device.stats().bytes_by_eviction.add(bytes);
    trace::evict(device.vdev(), trigger.name(), device_address, bytes);
    moved
}

/// Evicts single pages for a task that must not wait for anything but the device: to `placement`,
/// wherever they are mapped. Returns how many migrated. There are no more of them than in a block.
pub(super) fn bring_back(
    device: &Device,
    pages: Range<usize>,
    placement: Option<Placement>,
) -> usize {
    let trigger = Trigger::Eviction;
    let lease = device.engine().return_buffers.lease();
    let Ok(mut migration) = Migration::by_pfn(device.memory(), pages, lease) else {
        return 0;
    };
    let wanted = migration.collected_pages().single;
    let mut destinations = SystemDestinations::for_owner(placement, wanted);
    migration.for_each_source(|visit| {
        // A page without a destination stays where it is.
        destinations.give(visit);
    });
    let copying = Copying::start(device, trigger, Op::ToSystem, migration);
    let (migration, _failed) = copying.finish();
    let moved = install(device.stats(), trigger, migration);
    device
        .stats()
        .bytes_to_system
        .add((moved * PAGE_SIZE) as u64);
    moved
}

/// Evicts single pages that are not `kept`, wherever they are mapped; returns how many migrated.
fn evict_single(device: &Device, trigger: Trigger, pages: Range<usize>, kept: &KeptPages) -> usize {
    let lease = device.engine().evict_buffers.lease();
    let time = device.stats().measure(Stage::Setup, trigger);
    let first = pages.start;
    let mut placements = Placements::of(device.memory(), pages.clone());
    let Ok(mut migration) = Migration::by_pfn(device.memory(), pages, lease) else {
        return 0;
    };
    let time = time.then(Stage::Destinations);
    let mut wanted = migration.collected_pages().single;
    let mut destinations = Some(SystemDestinations::for_owner(None, wanted));
    migration.for_each_source(|visit| {
        // The sources are those of the pages that were in use, without gaps.
        let index = match visit.source() {
            Source::Page(page) => device.memory().index_of(page),
            _ => None,
        };
        let Some(index) = index else {
            return;
        };
        if let Some(site) = placements.take(index) {
            destinations = match site {
                Site::Anywhere => Some(SystemDestinations::for_owner(None, wanted)),
                Site::At(placement) => Some(SystemDestinations::for_owner(Some(placement), wanted)),
                Site::Unknown => None,
            };
        }
        // A page without a destination stays where it is.
        if let Some(destinations) =
            (destinations.as_mut()).filter(|_| !kept.contains(index - first))
        {
            destinations.give(visit);
        }
        wanted -= 1;
    });
    drop(time);
    let copying = Copying::start(device, trigger, Op::ToSystem, migration);
    let (migration, _failed) = copying.finish();
    install(device.stats(), trigger, migration)
}
