// SPDX-License-Identifier: GPL-2.0-only

//! Brings device pages home without being told whose they are: all when the device goes, or some
//! when others want its memory.
//!
//! Never called with an mmap lock held, or while a migration exists, let alone by a CPU fault.

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
    destinations::SystemDestinations,
    DeviceMemory,
    Door, //
};
use crate::{
    link::Link,
    pool::Ticket,
    stats::Stage,
    sys::{
        migrate::{
            Migration,
            Source, //
        },
        services::{
            signal::signal_waits,
            trace,
            workqueue::WorkQueue, //
        }, //
    }, //
};
use core::ops::Range;
use hmm_protocol::Op;
use hmm_uapi::Trigger;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Full,
                Release, //
            },
            Atomic, //
        },
        Arc, //
    },
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
            moved += evict(memory, link, Trigger::Unbind, pages);
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

/// Evicts pages that nobody has wanted on the device since `before`, until `pages` are available.
/// Returns whether they are; others may take them at once.
pub(crate) fn make_room(memory: &DeviceMemory, link: &Link, pages: usize, before: Ticket) -> bool {
    kernel::task::might_sleep();
    let pool = memory.ops();
    // Pages that somebody holds make a block fail, and then the next one is tried.
    let mut failures = pool.blocks();
    while pool.available_pages() < pages {
        if failures == 0 || link.is_stopping() || signal_waits() {
            return false;
        }
        let Some(victim) = pool.take_victim(before) else {
            return false;
        };
        if evict(memory, link, Trigger::Eviction, victim.pages()) == 0 {
            failures -= 1;
        }
    }
    true
}

/// Evicts about so many pages, whoever they belong to, of those that nobody has wanted on the
/// device since `before`. Returns how many came home.
pub(crate) fn some(memory: &DeviceMemory, link: &Link, pages: usize, before: Ticket) -> usize {
    kernel::task::might_sleep();
    let pool = memory.ops();
    let (mut moved, mut failures) = (0, pool.blocks());
    while moved < pages && failures > 0 && !link.is_stopping() && !signal_waits() {
        let Some(victim) = pool.take_victim(before) else {
            break;
        };
        match evict(memory, link, Trigger::Eviction, victim.pages()) {
            0 => failures -= 1,
            count => moved += count,
        }
    }
    moved
}

/// Whether old pages are being evicted in the background.
pub(super) struct Background(Atomic<u32>);

impl Background {
    pub(super) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self(Atomic::new(0)), GFP_KERNEL)?)
    }

    /// Begins; `None` if somebody else is at it.
    fn begin(this: &Arc<Self>) -> Option<Running> {
        this.0.cmpxchg(0, 1, Full).ok()?;
        Some(Running(this.clone()))
    }
}

/// Ends when it is dropped.
struct Running(Arc<Background>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0 .0.store(0, Release);
    }
}

/// For when a request had to make room: if little is left, evicts in the background what nobody has
/// wanted since `before`, so that the next request finds some. As long as all requests fit, nothing
/// is evicted.
pub(super) fn in_background(
    queue: &WorkQueue,
    door: &Arc<Door>,
    memory: &DeviceMemory,
    before: Ticket,
) {
    if !memory.ops().is_below_low_watermark() {
        return;
    }
    let Some(running) = Background::begin(&memory.ops().server().background) else {
        return;
    };
    let door = door.clone();
    // Without memory for it, the next request makes its own room.
    let _ = queue.spawn(move || {
        if let Some(memory) = door.enter() {
            let engine = memory.ops().server();
            if let Some(link) = engine.link().enter() {
                make_room(&memory, &link, memory.ops().high_watermark(), before);
            }
        }
        drop(running);
    });
}

/// Brings pages of one block home; returns how many. None may be allocated meanwhile.
fn evict(memory: &DeviceMemory, link: &Link, trigger: Trigger, pages: Range<usize>) -> usize {
    let device_address = (pages.start * PAGE_SIZE) as u64;
    let moved = huge::evict(memory, link, trigger, pages.start)
        + evict_single(memory, link, trigger, pages);
    let bytes = (moved * PAGE_SIZE) as u64;
    link.stats().bytes_to_system.add(bytes);
    link.stats().bytes_by_eviction.add(bytes);
    trace::evict(link.device(), trigger.name(), device_address, bytes);
    moved
}

/// Brings single pages home, wherever they are mapped; returns how many.
fn evict_single(
    memory: &DeviceMemory,
    link: &Link,
    trigger: Trigger,
    pages: Range<usize>,
) -> usize {
    let lease = memory.ops().server().evict_buffers.lease();
    let time = link.stats().measure(Stage::Setup, trigger);
    let first = pages.start;
    let mut placements = Placements::of(memory, pages.clone());
    let Ok(mut migration) = Migration::by_pfn(memory, pages, lease) else {
        return 0;
    };
    let time = time.then(Stage::Destinations);
    let mut wanted = migration.collected_pages().single;
    let mut destinations = Some(SystemDestinations::for_owner(None, wanted));
    migration.for_each_source(|visit| {
        if let Some(site) = placements.take(first + visit.index()) {
            destinations = match site {
                Site::Anywhere => Some(SystemDestinations::for_owner(None, wanted)),
                Site::At(placement) => Some(SystemDestinations::for_owner(Some(placement), wanted)),
                Site::Unknown => None,
            };
        }
        if let Source::Page(_) = visit.source() {
            // A page without a destination stays where it is.
            if let Some(destinations) = &mut destinations {
                destinations.give(visit);
            }
            wanted -= 1;
        }
    });
    drop(time);
    let copying = Copying::start(memory, link, trigger, Op::ToSystem, migration);
    let (migration, _failed) = copying.finish();
    install(link.stats(), trigger, migration)
}
