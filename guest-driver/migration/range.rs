// SPDX-License-Identifier: GPL-2.0-only

//! Moves a range of an address space, mapping by mapping and batch by batch.

use super::{
    tally::{
        reason_of_obstacle,
        reason_of_place,
        Tally, //
    },
    to_device,
    to_system,
    DeviceMemory, //
};
use crate::{
    link::{
        Lane,
        Link,
        BATCH_PAGES, //
    },
    sys::{
        migrate::Buffers,
        mm::{
            mmap_lock_is_contended,
            Vma,
            VmaObstacle, //
        },
        pagemap::Owner,
        snapshot::{
            Place,
            Snapshot, //
        }, //
    }, //
};
use core::ops::Range;
use hmm_uapi::{
    Direction,
    MigrateFlags,
    SkipReason, //
};
use kernel::{
    mm::{
        MmWithUser,
        MmapReadGuard, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::aref::ARef, //
};

/// What is to be moved.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    pub(crate) direction: Direction,
    pub(crate) flags: MigrateFlags,
    /// Whether huge pages may be huge on the device.
    pub(crate) huge: bool,
}

/// Scratch space of one request.
struct Scratch {
    buffers: Buffers,
    /// Pages of the batch that the kernel did not collect.
    not_collected: KVec<bool>,
    snapshot: KVec<usize>,
}

/// Moves `range` (page aligned) of `mm`. Returns the address where it stopped, which is before the
/// end only if a signal came.
///
/// # Errors
///
/// `ENOMEM`, or `ENODEV` if the device is dead.
pub(crate) fn migrate(
    memory: &DeviceMemory,
    link: &Link,
    mm: &ARef<MmWithUser>,
    range: Range<usize>,
    order: Order,
    tally: &mut Tally,
) -> Result<usize> {
    kernel::task::might_sleep();
    let mut scratch = Scratch {
        buffers: Buffers::new(BATCH_PAGES, false)?,
        not_collected: KVec::from_elem(false, BATCH_PAGES, GFP_KERNEL)?,
        snapshot: KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?,
    };
    // Takes the mmap lock for writing, so it comes first.
    let snapshot = KBox::pin_init(Snapshot::new(mm.clone()), GFP_KERNEL)?;

    let mut address = range.start;
    while address < range.end {
        if current!().signal_pending() {
            break;
        }
        if link.is_stopping() {
            return Err(ENODEV);
        }
        let guard = mm.mmap_read_lock();
        while address < range.end {
            let rest = address..range.end;
            let ctx = Pass {
                memory,
                link,
                order,
                guard: &guard,
                snapshot: &snapshot,
            };
            address = ctx.step(mm, rest, &mut scratch, tally);
            // A writer that waits keeps every fault of the process waiting behind it.
            if mmap_lock_is_contended(mm) || current!().signal_pending() || link.is_stopping() {
                break;
            }
        }
        drop(guard);
    }
    Ok(address)
}

/// One hold of the mmap lock.
struct Pass<'a> {
    memory: &'a DeviceMemory,
    link: &'a Link,
    order: Order,
    guard: &'a MmapReadGuard<'a>,
    snapshot: &'a Snapshot,
}

impl Pass<'_> {
    /// Deals with the front of `rest`: a gap, a mapping that cannot move, or one batch. Returns
    /// where it ends.
    fn step(
        &self,
        mm: &MmWithUser,
        rest: Range<usize>,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) -> usize {
        let stats = self.link.stats();
        let vma = match Vma::find(mm, self.guard, rest.start) {
            Some(vma) if vma.start() < rest.end => vma,
            _ => {
                tally.skip(stats, SkipReason::Unmapped, pages_of(&rest));
                return rest.end;
            }
        };
        if rest.start < vma.start() {
            let gap = rest.start..vma.start();
            tally.skip(stats, SkipReason::Unmapped, pages_of(&gap));
            return gap.end;
        }
        let end = rest.end.min(vma.end());
        if let Some(reason) = self.reason_to_skip(&vma) {
            tally.skip(stats, reason, pages_of(&(rest.start..end)));
            return end;
        }
        // Batches end where page tables do.
        let batch_bytes = BATCH_PAGES * PAGE_SIZE;
        let table_end = (rest.start / batch_bytes + 1).saturating_mul(batch_bytes);
        let batch = rest.start..end.min(table_end);
        self.batch(&vma, batch.clone(), scratch, tally);
        batch.end
    }

    /// Why no page of the mapping is to move, if so.
    fn reason_to_skip(&self, vma: &Vma<'_>) -> Option<SkipReason> {
        match (self.order.direction, vma.obstacle()) {
            // What went to the device before access was taken away must come back.
            (Direction::ToSystem, Some(VmaObstacle::NoAccess)) => None,
            (_, Some(obstacle)) => Some(reason_of_obstacle(obstacle)),
            (Direction::ToDevice, None)
                if vma.is_mlocked() && !self.order.flags.contains(MigrateFlags::MLOCKED) =>
            {
                Some(SkipReason::Mlocked)
            }
            _ => None,
        }
    }

    fn batch(&self, vma: &Vma<'_>, range: Range<usize>, scratch: &mut Scratch, tally: &mut Tally) {
        let pages = pages_of(&range) as usize;
        let Some(not_collected) = scratch.not_collected.get_mut(..pages) else {
            return;
        };
        not_collected.fill(false);
        let mut job = Job {
            memory: self.memory,
            link: self.link,
            lane: Lane::Bulk,
            tally: &mut *tally,
            not_collected,
        };
        let buffers = &mut scratch.buffers;
        let result = match self.order.direction {
            Direction::ToDevice => {
                to_device::run(&mut job, vma, range.clone(), self.order, buffers)
            }
            Direction::ToSystem => to_system::run(&mut job, vma, range.clone(), buffers),
        };
        if result.is_err() {
            // The kernel refuses the mapping as a whole.
            tally.skip(self.link.stats(), SkipReason::Special, pages as u64);
            return;
        }
        let Job {
            not_collected: missing,
            tally,
            ..
        } = job;
        if missing.iter().any(|&missing| missing) {
            self.explain(vma, range, missing, &mut scratch.snapshot, tally);
        }
    }

    /// Finds out why pages were not collected. The kernel does not say, so look where they are.
    fn explain(
        &self,
        vma: &Vma<'_>,
        range: Range<usize>,
        missing: &mut [bool],
        entries: &mut [usize],
        tally: &mut Tally,
    ) {
        let stats = self.link.stats();
        let direction = self.order.direction;
        let own = self.memory.owner();
        let mut look = |owner, reason: &dyn Fn(Place) -> Option<SkipReason>| {
            let range = range.clone();
            self.snapshot
                .look(self.guard, range, owner, entries, |page, place| {
                    let mark = missing.get_mut(page).filter(|mark| **mark);
                    if let (Some(mark), Some(reason)) = (mark, reason(place)) {
                        *mark = false;
                        tally.skip(stats, reason, 1);
                    }
                })
        };
        // One owner does not see the pages of another, nor that there are any.
        let mut result = look(own, &|place| {
            (place != Place::Nowhere).then(|| reason_of_place(direction, place, vma))
        });
        for owner in Owner::all().filter(|&owner| owner != own) {
            result = result.and(look(owner, &|place| {
                (place == Place::Device).then_some(SkipReason::OtherDevice)
            }));
        }
        let rest = match result {
            Ok(()) => reason_of_place(direction, Place::Nowhere, vma),
            // The range changes faster than it can be looked at: that is what busy means.
            Err(_) => SkipReason::Busy,
        };
        let count = missing.iter().filter(|&&missing| missing).count();
        tally.skip(stats, rest, count as u64);
    }
}

/// One batch in the making.
pub(super) struct Job<'a> {
    pub(super) memory: &'a DeviceMemory,
    pub(super) link: &'a Link,
    pub(super) lane: Lane,
    pub(super) tally: &'a mut Tally,
    /// Set for pages that the kernel did not collect.
    pub(super) not_collected: &'a mut [bool],
}

impl Job<'_> {
    /// Counts pages that did not move.
    pub(super) fn skip(&mut self, reason: SkipReason, pages: usize) {
        self.tally.skip(self.link.stats(), reason, pages as u64);
    }

    /// The kernel did not collect the page; the reason is found out later.
    pub(super) fn mark_not_collected(&mut self, page: usize) {
        if let Some(mark) = self.not_collected.get_mut(page) {
            *mark = true;
        }
    }
}

fn pages_of(range: &Range<usize>) -> u64 {
    (range.len() >> PAGE_SHIFT) as u64
}
