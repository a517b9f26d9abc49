// SPDX-License-Identifier: GPL-2.0-only

//! Brings home what a CPU that reads in order is about to touch, while it reads what it has.
//!
//! The CPU finds these pages in system memory or waits until they are, as for any page that is on
//! its way. Whatever goes wrong here only leaves pages where they are: the CPU then faults on them.

use super::{
    copy::{
        install,
        Copying, //
    },
    DeviceMemory,
    Door, //
};
use crate::{
    link::Link,
    pool::Ticket,
    sys::{
        migrate::{
            Migration,
            Select,
            Source, //
        },
        mm::Vma,
        page::{
            Destination,
            HUGE_PAGES, //
        },
        page_stock::PageStock,
        workqueue::WorkQueue, //
    }, //
};
use core::ops::Range;
use hmm_protocol::Op;
use hmm_uapi::Trigger;
use kernel::{
    mm::{
        Mm,
        MmWithUser, //
    },
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc,
        SpinLock, //
    }, //
};

/// Readers for whom something is fetched at once.
const MOST: usize = 4;
/// Bytes that are moved together: a reader that has caught up waits for so many.
const STEP: usize = HUGE_PAGES * PAGE_SIZE;

/// Where the work is done.
#[derive(Clone)]
struct Way {
    queue: Arc<WorkQueue>,
    door: Arc<Door>,
}

/// What is fetched ahead.
#[pin_data]
pub(crate) struct Ahead {
    /// Nothing is fetched before it is set, and after it is taken.
    #[pin]
    way: SpinLock<Option<Way>>,
    running: Arc<Atomic<usize>>,
}

impl Ahead {
    /// Fetches nothing yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let running = Arc::new(Atomic::new(0), GFP_KERNEL)?;
            Ok(try_pin_init!(Self {
                way <- new_spinlock!(None, "migration::Ahead::way"),
                running,
            }))
        })
    }

    /// Fetches by workers of `queue`, behind `door`, from now on. The queue must outlive every CPU
    /// fault.
    pub(crate) fn open(&self, queue: Arc<WorkQueue>, door: Arc<Door>) {
        let before = self.way.lock().replace(Way { queue, door });
        drop(before);
    }

    /// Begins nothing any more, and lets go of the door.
    pub(crate) fn close(&self) {
        let way = self.way.lock().take();
        drop(way);
    }

    /// Has `range` of `mm` brought home by somebody else, if somebody has time for it. What a request
    /// after `ticket` wants on the device stays there.
    pub(super) fn fetch(&self, mm: &MmWithUser, range: Range<usize>, ticket: Ticket) {
        let Some(way) = self.way.lock().clone() else {
            return;
        };
        let Some(turn) = Turn::take(&self.running) else {
            return;
        };
        // Until it begins it does not keep the memory of a process that has ended.
        let mm: ARef<Mm> = ARef::from(&**mm);
        let door = way.door;
        // Without memory for it, nothing is fetched.
        let _ = way.queue.spawn(move || {
            if let (Some(memory), Some(mm)) = (door.enter(), mm.mmget_not_zero()) {
                if let Some(link) = memory.ops().server().link().enter() {
                    bring(&memory, &link, &mm, range, ticket);
                }
            }
            drop(turn);
        });
    }
}

/// One of those who may fetch at once.
struct Turn(Arc<Atomic<usize>>);

impl Turn {
    fn take(running: &Arc<Atomic<usize>>) -> Option<Self> {
        let turn = Self(running.clone());
        // Dropping it gives it back, also if it was one too many.
        (running.fetch_add(1, Relaxed) < MOST).then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Brings `range` home step by step, as far as it is mapped.
fn bring(memory: &DeviceMemory, link: &Link, mm: &MmWithUser, range: Range<usize>, ticket: Ticket) {
    let mut address = range.start;
    while address < range.end && !link.is_stopping() {
        let guard = mm.mmap_read_lock();
        let Some(vma) = Vma::find(mm, &guard, address).filter(|vma| vma.start() <= address) else {
            return;
        };
        let table = (address & !(STEP - 1)).saturating_add(STEP);
        let end = range.end.min(vma.end()).min(table);
        let Some(moved) = step(memory, link, vma, address..end, ticket) else {
            return;
        };
        let bytes = (moved * PAGE_SIZE) as u64;
        link.stats().bytes_to_system.add(bytes);
        address = end;
    }
}

/// Moves what lies on the device of a range of at most [`STEP`] bytes. Returns how many pages moved;
/// `None`: it is not worth going on.
fn step(
    memory: &DeviceMemory,
    link: &Link,
    vma: Vma<'_>,
    range: Range<usize>,
    ticket: Ticket,
) -> Option<usize> {
    let start = range.start;
    // Whoever has the buffers was asked for what it does; this was not.
    let lease = memory.ops().server().bulk_buffers.try_lease()?;
    let mut migration = Migration::of_range(vma, range, Select::Device, memory, lease).ok()?;
    // What has gone to the device since then is not to come back. What is collected now, before a
    // request begins, was there before.
    if memory.ops().has_later(ticket) {
        return None;
    }
    let mut stock = PageStock::new(migration.collected_pages().single);
    let mut out_of_memory = false;
    migration.for_each_source(|visit| {
        let address = start + visit.index() * PAGE_SIZE;
        let destination = match visit.source() {
            Source::Skipped | Source::Hole | Source::HugeHole => return,
            Source::Page(_) => stock.take_for(&vma, address),
            Source::HugePage(_) => Destination::huge_system_for(&vma, address),
        };
        match destination {
            Ok(destination) => visit.give(destination),
            Err(_) => out_of_memory = true,
        }
    });
    let copying = Copying::start(memory, link, Trigger::Prefetch, Op::ToSystem, migration);
    let (migration, failed) = copying.finish();
    let moved = install(link.stats(), Trigger::Prefetch, migration);
    (!out_of_memory && failed == 0).then_some(moved)
}
