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
    destinations::SystemDestinations,
    split::{
        self,
        Splits, //
    },
    DeviceMemory,
    Door, //
};
use crate::{
    link::Link,
    policy::Known,
    pool::Ticket,
    sys::{
        address_space::{
            clear_hold::{
                ClearHold,
                Undisturbed, //
            },
            exclusive::Exclusive,
            mm::{
                mmap_lock_is_contended,
                Vma, //
            },
            mmap_lock::MmapReadGuard, //
        },
        device_memory::page::HUGE_PAGES,
        migrate::{
            Migration,
            Select, //
        },
        services::workqueue::WorkQueue, //
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
const STEP: usize = 2 * HUGE_PAGES * PAGE_SIZE;

/// In which order a reader comes to addresses.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// Upwards.
    Up,
    /// Downwards.
    Down,
}

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
    splits: Arc<Splits>,
    settling: Arc<Atomic<usize>>,
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
            let settling = Arc::new(Atomic::new(0), GFP_KERNEL)?;
            Ok(try_pin_init!(Self {
                way <- new_spinlock!(None, "migration::Ahead::way"),
                running,
                splits: Splits::new()?,
                settling,
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
    pub(super) fn fetch(&self, mm: &MmWithUser, range: Range<usize>, order: Order, ticket: Ticket) {
        let Some(way) = self.way.lock().clone() else {
            return;
        };
        let Some(turn) = Turn::take(&self.running) else {
            return;
        };
        // Without memory for it, nothing is fetched.
        let _ = way.have_done(mm, turn, move |memory, link, mm| {
            let fetch = Fetch {
                memory,
                link,
                mm,
                known: memory.ops().server().spaces().find(mm),
                ticket,
            };
            fetch.run(Rest { range, order });
        });
    }

    /// Lets a worker wait until no task clears entries of the process. A fault, which must not wait
    /// for that, is retried meanwhile.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `ENODEV` if there are no workers.
    pub(super) fn settle(&self, known: &Known) -> Result {
        let way = self.way.lock().clone().ok_or(ENODEV)?;
        // As many as may wait at once; a fault that finds no worker is retried all the same.
        let Some(turn) = Turn::take(&self.settling) else {
            return Ok(());
        };
        let known = known.clone();
        way.queue.spawn(move || {
            known.settle();
            drop(turn);
        })
    }

    /// Has the huge page at `address` of `mm` split and brought home by somebody else, who may have
    /// begun already. Where nobody can any more, somebody brings all pages home.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn split(&self, mm: &MmWithUser, address: usize) -> Result {
        let Some(way) = self.way.lock().clone() else {
            return Ok(());
        };
        match Splits::begin(&self.splits, mm, address) {
            Some(split) => way.have_done(mm, split, move |memory, link, mm| {
                split::bring_home(memory, link, mm, address);
            }),
            None => Ok(()),
        }
    }
}

impl Way {
    /// Has a worker do something to the memory of `mm`, unless the process or the device is gone by
    /// then. `turn` is dropped at the end in any case.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn have_done(
        self,
        mm: &MmWithUser,
        turn: impl Send + 'static,
        work: impl FnOnce(&DeviceMemory, &Link, &MmWithUser) + Send + 'static,
    ) -> Result {
        // Until it begins it does not keep the memory of a process that has ended.
        let mm: ARef<Mm> = ARef::from(&**mm);
        let door = self.door;
        self.queue.spawn(move || {
            if let (Some(memory), Some(mm)) = (door.enter(), mm.mmget_not_zero()) {
                if let Some(link) = memory.ops().server().link().enter() {
                    work(&memory, &link, &mm);
                }
            }
            drop(turn);
        })
    }
}

/// One of the workers that may do the same at once.
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

/// Addresses that are still to be fetched.
struct Rest {
    range: Range<usize>,
    order: Order,
}

impl Rest {
    /// The addresses that the reader comes to next, at most those of one step.
    fn front(&self) -> Option<Range<usize>> {
        let Range { start, end } = self.range;
        if start >= end {
            return None;
        }
        Some(match self.order {
            Order::Up => start..(start & !(STEP - 1)).saturating_add(STEP).min(end),
            Order::Down => ((end - 1) & !(STEP - 1)).max(start)..end,
        })
    }

    /// Goes on after [`Self::front`].
    fn pass(&mut self, front: &Range<usize>) {
        match self.order {
            Order::Up => self.range.start = front.end,
            Order::Down => self.range.end = front.start,
        }
    }
}

/// Who fetches, and what for.
struct Fetch<'a> {
    memory: &'a DeviceMemory,
    link: &'a Link,
    mm: &'a MmWithUser,
    known: Option<Known>,
    ticket: Ticket,
}

impl Fetch<'_> {
    /// Brings it home, as far as it is mapped.
    fn run(&self, mut rest: Rest) {
        while rest.front().is_some() && !self.link.is_stopping() {
            let guard = MmapReadGuard::lock(self.mm);
            if !self.hold(&guard, &mut rest) {
                return;
            }
        }
    }

    /// Goes on until somebody else needs the mmap lock. Two steps are on their way at a time. Returns
    /// whether it is worth going on.
    fn hold(&self, guard: &MmapReadGuard<'_>, rest: &mut Rest) -> bool {
        // Before a step is begun: who has begun one must not wait for those who clear.
        let held = self.known.as_ref().and_then(|known| {
            let vma = Vma::find(guard, rest.range.start)?;
            let all = Exclusive::of(&vma, rest.range.clone())?;
            known.hold(all, self.memory.owner())
        });
        let select = held
            .as_ref()
            .map(Undisturbed::Held)
            .map_or(Select::Device, Select::DeviceHuge);
        let mut pending = None;
        while let Some(front) = rest.front() {
            let next = self.start(guard, select, front.clone());
            let is_good = self.finish(pending.take()) && next.is_some();
            pending = next;
            if !is_good {
                self.finish(pending);
                return false;
            }
            rest.pass(&front);
            let is_contended = mmap_lock_is_contended(self.mm)
                || held.as_ref().is_some_and(ClearHold::is_contended);
            if is_contended || self.link.is_stopping() {
                break;
            }
        }
        self.finish(pending)
    }

    /// Has the device copy what lies there of `range`; `None` if it is not worth going on.
    fn start<'b>(
        &'b self,
        guard: &'b MmapReadGuard<'_>,
        select: Select<'b>,
        range: Range<usize>,
    ) -> Option<Copying<'b>> {
        let vma = Vma::find(guard, range.start)?;
        if vma.start() > range.start || vma.end() < range.end {
            return None;
        }
        let start = range.start;
        let (memory, link) = (self.memory, self.link);
        // Whoever has the buffers was asked for what it does; this was not.
        let lease = memory.ops().server().bulk_buffers.try_lease()?;
        let mut migration = Migration::of_range(vma, range, select, memory, lease).ok()?;
        // What has gone to the device since the fault is not to come back. What is collected now,
        // before a request begins, was there before.
        if memory.ops().has_later(self.ticket) {
            return None;
        }
        let mut out_of_memory = false;
        let mut destinations = SystemDestinations::for_mapping(vma, start, &migration);
        migration.for_each_source(|visit| out_of_memory |= !destinations.give_whole(visit));
        if out_of_memory {
            return None;
        }
        let (trigger, op) = (Trigger::Prefetch, Op::ToSystem);
        Some(Copying::start(memory, link, trigger, op, migration))
    }

    /// Waits for a step and installs what was copied. Returns whether all of it was.
    fn finish(&self, step: Option<Copying<'_>>) -> bool {
        let Some(copying) = step else {
            return true;
        };
        let stats = self.link.stats();
        let (migration, failed) = copying.finish();
        let moved = install(stats, Trigger::Prefetch, migration);
        stats.bytes_to_system.add((moved * PAGE_SIZE) as u64);
        failed == 0
    }
}
