// SPDX-License-Identifier: GPL-2.0-only

//! Readahead: migrates back what a CPU that reads in order is about to touch, while it reads on.
//!
//! The CPU finds these pages in system memory, or waits for them as for any page that is being
//! migrated. A failure here only leaves pages where they are: the CPU then faults on them.

use super::{
    copy::{
        install,
        Copying, //
    },
    destinations::SystemDestinations,
    worker, //
};
use crate::{
    device::Device,
    policy::WatchedSpace,
    pool::Ticket,
    sys::{
        address_space::{
            exclusive::Exclusive,
            mm::{
                mmap_lock_is_contended,
                Vma, //
            },
            mmap_lock::MmapReadGuard, //
            zap_guard::{
                ZapExclusion, //
                ZapGuard,
            },
        },
        device_memory::page::HUGE_PAGES,
        migrate::{
            Migration,
            Select, //
        }, //
    }, //
};
use core::ops::Range;
use hmm_protocol::Op;
use hmm_uapi::Trigger;
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE, //
};

/// How often a worker tries to get the mmap lock of the process.
const TRIES: usize = 32;
/// Bytes that are moved together: a reader that has caught up waits for so many.
const STEP: usize = 2 * HUGE_PAGES * PAGE_SIZE;

/// In which order a reader comes to addresses.
#[derive(Clone, Copy)]
pub(super) enum ScanDirection {
    /// Upwards.
    Up,
    /// Downwards.
    Down,
}

/// Lets a worker migrate `range` of `mm` back, if there is one to spare. What a request after `ticket`
/// wants on the device stays there.
pub(super) fn spawn(
    device: &Device,
    mm: &MmWithUser,
    range: Range<usize>,
    direction: ScanDirection,
    ticket: Ticket,
) {
    if device.link().is_stopping() {
        return;
    }
    let Some(turn) = device.engine().readaheads.take() else {
        return;
    };
    // Without memory for it, nothing is read ahead.
    let _ = worker::spawn(device, mm, turn, move |device, mm| {
        let readahead = Readahead {
            device,
            mm,
            known: device.spaces().find(mm),
            ticket,
        };
        readahead.run(Rest { range, direction });
    });
}

/// Addresses that are still to be migrated.
struct Rest {
    range: Range<usize>,
    direction: ScanDirection,
}

impl Rest {
    /// The addresses that the reader comes to next, at most those of one step.
    fn front(&self) -> Option<Range<usize>> {
        let Range { start, end } = self.range;
        if start >= end {
            return None;
        }
        Some(match self.direction {
            ScanDirection::Up => start..(start & !(STEP - 1)).saturating_add(STEP).min(end),
            ScanDirection::Down => ((end - 1) & !(STEP - 1)).max(start)..end,
        })
    }

    /// Goes on after [`Self::front`].
    fn pass(&mut self, front: &Range<usize>) {
        match self.direction {
            ScanDirection::Up => self.range.start = front.end,
            ScanDirection::Down => self.range.end = front.start,
        }
    }
}

/// One process's readahead.
struct Readahead<'a> {
    device: &'a Device,
    mm: &'a MmWithUser,
    known: Option<WatchedSpace>,
    ticket: Ticket,
}

impl Readahead<'_> {
    /// Migrates `rest` back, as far as it is mapped.
    fn run(&self, mut rest: Rest) {
        while rest.front().is_some() && !self.device.link().is_stopping() {
            // What the reader does not wait for yet is not worth a long wait.
            let mut tries = TRIES;
            let gives_up = || {
                tries -= 1;
                tries == 0 || self.device.link().is_stopping()
            };
            let Ok(guard) = MmapReadGuard::lock(self.mm, gives_up) else {
                return;
            };
            if !self.hold(&guard, &mut rest) {
                return;
            }
        }
    }

    /// Goes on until another task needs the mmap lock. Two steps are in flight at a time. Returns
    /// whether it is worth going on.
    fn hold(&self, guard: &MmapReadGuard<'_>, rest: &mut Rest) -> bool {
        // Before a step is begun: a migration must not wait for tasks that zap PTEs.
        let held = self.known.as_ref().and_then(|known| {
            let vma = Vma::find(guard, rest.range.start)?;
            let all = Exclusive::of(&vma, rest.range.clone())?;
            known.hold(all, self.device.memory().owner())
        });
        let select = held
            .as_ref()
            .map(ZapExclusion::Held)
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
                || held.as_ref().is_some_and(ZapGuard::is_contended);
            if is_contended || self.device.link().is_stopping() {
                break;
            }
        }
        self.finish(pending)
    }

    /// Lets the device copy its part of `range`; `None` if it is not worth going on.
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
        let device = self.device;
        // Do not wait for buffers: requests that have them were asked for, readahead was not.
        let lease = device.engine().bulk_buffers.try_lease()?;
        let mut migration = Migration::of_range(vma, range, select, device.memory(), lease).ok()?;
        // What has gone to the device since the fault is not to come back. What is collected now,
        // before a request begins, was there before.
        if device.pages().has_later(self.ticket) {
            return None;
        }
        let mut out_of_memory = false;
        let mut destinations = SystemDestinations::for_mapping(vma, start, &migration);
        migration.for_each_source(|visit| out_of_memory |= !destinations.give_whole(visit));
        if out_of_memory {
            return None;
        }
        let (trigger, op) = (Trigger::Prefetch, Op::ToSystem);
        Some(Copying::start(device, trigger, op, migration))
    }

    /// Waits for a step and installs what was copied. Returns whether all of it was.
    fn finish(&self, step: Option<Copying<'_>>) -> bool {
        let Some(copying) = step else {
            return true;
        };
        let stats = self.device.stats();
        let (migration, failed) = copying.finish();
        let moved = install(stats, Trigger::Prefetch, migration);
        stats.bytes_to_system.add((moved * PAGE_SIZE) as u64);
        failed == 0
    }
}
