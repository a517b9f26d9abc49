// SPDX-License-Identifier: GPL-2.0-only

//! One hold of the mmap lock: as much of a piece as migrates before another task needs the lock, or
//! pages must be evicted.

mod batches;

use self::batches::{
    Batches,
    NeedsRoom, //
};
use super::{
    merged::{
        front,
        PageRun, //
    },
    request::Request, //
};
use crate::{
    engine::WalkBuffers,
    link::Lane,
    migration::{
        migrate_args::TABLE_BYTES,
        tally::{
            reason_of_obstacle,
            Tally, //
        }, //
    },
    sys::{
        address_space::{
            exclusive::Sharing,
            locked::MmapLocked,
            mm::{
                has_swapped_pages,
                mmap_lock_is_contended,
                Vma,
                VmaObstacle, //
            },
            mmap_lock::{
                MmapReadGuard,
                MmapWriteGuard, //
            }, //
            zap_guard::{
                ZapExclusion, //
                ZapGuard,
            },
        },
        migrate::{
            Lease,
            Select, //
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
    page::PAGE_SIZE,
    prelude::*, //
};

/// Where a hold of the mmap lock ended.
pub(super) struct Stop {
    pub(super) address: usize,
    /// Set if it ended because so many pages need room on the device.
    pub(super) needs_room: Option<usize>,
    /// Whether the rest takes the lock for writing.
    needs_writing: bool,
}

/// Why a batch was not begun.
enum NotBegun {
    NeedsRoom(NeedsRoom),
    /// It takes the lock for writing: pages are swapped out ([`may_swap_in_merged`]), or others may
    /// write-protect pages meanwhile ([`Vma::is_scanned`]).
    NeedsWriting,
}

impl From<NeedsRoom> for NotBegun {
    fn from(needs_room: NeedsRoom) -> Self {
        Self::NeedsRoom(needs_room)
    }
}

/// Takes the mmap lock and migrates the pages of `range`, until another task needs the lock, or pages
/// must be evicted, if `may_evict`.
///
/// # Errors
///
/// `EINTR`: the lock was not free until the request ended, or the calling thread was killed.
pub(super) fn hold(
    request: &Request<'_>,
    range: Range<usize>,
    may_evict: bool,
    scratch: &mut WalkBuffers,
    tally: &mut Tally,
) -> Result<Stop> {
    {
        let guard = MmapReadGuard::lock(request.mm, request.gives_up)?;
        if !may_swap_in_merged(request) {
            let start = range.start;
            let stop = hold_with(
                request,
                range.clone(),
                &guard,
                None,
                may_evict,
                scratch,
                tally,
            );
            if !(stop.needs_writing && stop.address == start) {
                return Ok(stop);
            }
        }
    }
    let guard = MmapWriteGuard::lock(request.mm, request.gives_up)?;
    Ok(hold_with(
        request,
        range,
        &guard,
        Some(&guard),
        may_evict,
        scratch,
        tally,
    ))
}

/// Whether faults must be kept out, which takes the mmap lock for writing: one can bring a merged page
/// back from swap that KSM has no record of (see [`super::merged`]), and none may come between the look
/// for merged pages and the collection. This is asked with the lock, before the first look and after
/// each, and no page may be swapped out then. Why that is enough:
///
/// - A page that is merged at the look is left out.
/// - A page that is neither merged nor swapped out at the look does not become merged. KSM merges only
///   in mappings that are `VM_MERGEABLE`, which stay out as a whole. With the lock no mapping changes.
///   Before the lock it would be too early to ask: `MADV_UNMERGEABLE` may have the lock.
/// - A page that is swapped out at the look was swapped out after the question before it. Reclaim finds
///   the page only by a record of KSM's, which KSM has to drop before the page is collected. If the page
///   is still swapped out at the question after the look, nothing is collected.
///
/// So what is left is a page that reclaim unmaps, whose record KSM drops, and that a fault maps again,
/// in this order and all between two questions, with the look in the middle. These are some
/// microseconds without a sleep, while KSM drops records once in a pass over all its memory.
fn may_swap_in_merged(request: &Request<'_>) -> bool {
    request.args.direction == Direction::ToDevice && has_swapped_pages(request.mm)
}

/// As [`hold`], with the lock held.
fn hold_with(
    request: &Request<'_>,
    range: Range<usize>,
    guard: &dyn MmapLocked,
    exclusive: Option<&MmapWriteGuard<'_>>,
    may_evict: bool,
    scratch: &mut WalkBuffers,
    tally: &mut Tally,
) -> Stop {
    // Before a batch is begun: a migration must not wait for tasks that zap PTEs.
    let (range, held) = match (exclusive, request.known) {
        (None, Some(known)) => {
            let front = Sharing::of_front(guard, range.clone());
            let range = range.start..front.end();
            let held = match front {
                Sharing::Exclusive(front) => known.hold(front, request.device.memory().owner()),
                Sharing::Shared(_) => None,
            };
            (range, held)
        }
        _ => (range, None),
    };
    let undisturbed = match (exclusive, &held) {
        (Some(lock), _) => Some(ZapExclusion::Locked(lock)),
        (None, held) => held.as_ref().map(ZapExclusion::Held),
    };
    let mut hold = Hold {
        request,
        guard,
        exclusive,
        batches: Batches::new(request, guard, may_evict, scratch, tally),
        select: match (request.args.direction, undisturbed) {
            (Direction::ToDevice, Some(undisturbed)) if request.args.huge => {
                Select::SystemHuge(undisturbed)
            }
            (Direction::ToDevice, _) => Select::System,
            (Direction::ToSystem, undisturbed) => {
                undisturbed.map_or(Select::Device, Select::DeviceHuge)
            }
        },
    };
    let mut stop = Stop {
        address: range.start,
        needs_room: None,
        needs_writing: false,
    };
    while stop.address < range.end {
        match hold.step(stop.address..range.end) {
            Ok(end) => stop.address = end,
            Err(NotBegun::NeedsRoom(NeedsRoom(pages))) => {
                stop.needs_room = Some(pages);
                break;
            }
            Err(NotBegun::NeedsWriting) => {
                stop.needs_writing = true;
                break;
            }
        }
        // A writer that waits, as one that has the lock, keeps every fault of the process waiting.
        // So does a task that waits to zap PTEs.
        let is_contended = exclusive.is_some()
            || mmap_lock_is_contended(request.mm)
            || held.as_ref().is_some_and(ZapGuard::is_contended);
        if is_contended || request.device.link().is_stopping() || request.process.has_left() {
            break;
        }
    }
    hold.batches.finish();
    stop
}

/// One hold of the mmap lock.
struct Hold<'a, 's> {
    request: &'a Request<'a>,
    guard: &'a dyn MmapLocked,
    /// The same, if the lock is held for writing.
    exclusive: Option<&'a MmapWriteGuard<'a>>,
    /// What is collected.
    select: Select<'a>,
    batches: Batches<'a, 's>,
}

impl<'a> Hold<'a, '_> {
    /// Deals with the front of `rest`: addresses without pages to move, or one batch. Returns where
    /// it ends.
    fn step(&mut self, rest: Range<usize>) -> core::result::Result<usize, NotBegun> {
        let vma = match self.mapping(rest.start) {
            Ok(vma) => vma,
            Err((reason, end)) => return Ok(self.pass(reason, &rest, end)),
        };
        let end = rest.end.min(vma.end());
        let lease = self.lease();
        let bytes = self.batch_bytes().min(lease.capacity() * PAGE_SIZE);
        let table = rest.start & !(TABLE_BYTES - 1);
        let batch = match self.front(&vma, rest.start..end.min(table.saturating_add(bytes))) {
            Ok(batch) => batch,
            Err((reason, left_out)) => {
                self.batches.skip(reason, &left_out);
                return Ok(left_out.end);
            }
        };
        let to_device = self.request.args.direction == Direction::ToDevice;
        if self.exclusive.is_none()
            && (may_swap_in_merged(self.request) || to_device && vma.is_scanned())
        {
            return Err(NotBegun::NeedsWriting);
        }
        let batch_end = batch.end;
        let select = match self.select {
            // The kernel cannot move huge device pages, and calls them written after a migration.
            Select::SystemHuge(_) if vma.tracks_writes() || vma.has_userfaultfd() => Select::System,
            select => select,
        };
        self.batches.start(vma, batch, select, lease)?;
        Ok(batch_end)
    }

    /// The mapping at `address`, if there may be a page to move; otherwise the reason why not, and
    /// where that ends, which can be behind the piece.
    fn mapping(&self, address: usize) -> core::result::Result<Vma<'a>, (SkipReason, usize)> {
        let horizon = self.request.frontier.horizon();
        let vma = match Vma::find(self.guard, address) {
            Some(vma) if vma.start() <= address => vma,
            next => {
                let end = next.map_or(horizon, |vma| vma.start().min(horizon));
                return Err((SkipReason::Unmapped, end));
            }
        };
        let end = vma.end().min(horizon);
        if let Some(reason) = self.reason_to_skip(&vma) {
            return Err((reason, end));
        }
        let args = self.request.args;
        let fills_holes = args.direction == Direction::ToDevice
            && args.flags.contains(MigrateFlags::POPULATE)
            && vma.may_be_populated();
        if !fills_holes {
            let used = vma.next_populated(address..end);
            if used > address {
                return Err((SkipReason::Hole, used));
            }
        }
        Ok(vma)
    }

    /// Counts the addresses from the start of `rest` to `end`, and takes those behind `rest` from the
    /// request. Returns where it ends within `rest`.
    fn pass(&mut self, reason: SkipReason, rest: &Range<usize>, end: usize) -> usize {
        let inside = rest.start..end.min(rest.end);
        self.batches.skip(reason, &inside);
        if end > rest.end {
            if let Some(behind) = self.request.frontier.pass(end) {
                self.batches.skip(reason, &behind);
            }
        }
        inside.end
    }

    /// The front of a batch that may be collected; or one that must not, and why.
    fn front(
        &mut self,
        vma: &Vma<'_>,
        batch: Range<usize>,
    ) -> core::result::Result<Range<usize>, (SkipReason, Range<usize>)> {
        if self.request.args.direction == Direction::ToSystem {
            return Ok(batch);
        }
        if let Some(lock) = self.exclusive {
            lock.keep_faults_out(vma);
        }
        let entries = self.batches.scratch.snapshot.as_mut_slice();
        match front(self.request, self.guard, batch.clone(), entries) {
            Ok(PageRun::Plain(plain)) => Ok(plain),
            Ok(PageRun::Merged(merged)) => Err((SkipReason::Ksm, merged)),
            // A mapping that cannot be looked at.
            Err(_) => Err((SkipReason::Special, batch)),
        }
    }

    /// Why no page of the mapping is to move, if so.
    fn reason_to_skip(&self, vma: &Vma<'_>) -> Option<SkipReason> {
        let args = self.request.args;
        match (args.direction, vma.obstacle()) {
            // What went to the device before access was taken away must come back.
            (Direction::ToSystem, Some(VmaObstacle::NoAccess)) => None,
            (_, Some(obstacle)) => Some(reason_of_obstacle(obstacle)),
            (Direction::ToDevice, None)
                if vma.is_mlocked() && !args.flags.contains(MigrateFlags::MLOCKED) =>
            {
                Some(SkipReason::Mlocked)
            }
            // Also the pages that are not merged: while KSM merges one, its page table entry is there
            // before the record by which the kernel finds it again, and it can happen at any time.
            (Direction::ToDevice, None) if vma.is_mergeable() => Some(SkipReason::Ksm),
            _ => None,
        }
    }

    /// Bytes of a batch, which begins and ends where page tables do.
    fn batch_bytes(&self) -> usize {
        let (device, args) = (self.request.device, self.request.args);
        let entries = device.link().max_entries(Lane::Bulk) * PAGE_SIZE;
        let paced = device.engine().tuning.batch_bytes();
        // What is beyond a limit would be collected for nothing, and cannot be reclaimed meanwhile.
        let allowed = match args.direction {
            Direction::ToDevice => device.pages().accounts().room(args.account),
            Direction::ToSystem => u64::MAX,
        };
        let allowed = usize::try_from(allowed)
            .unwrap_or(usize::MAX)
            .saturating_mul(PAGE_SIZE);
        let bytes = paced.min(entries).min(allowed);
        (bytes & !(TABLE_BYTES - 1)).max(TABLE_BYTES)
    }

    /// Buffers for a batch. A thread that has some must not wait for more, so without any left the
    /// pending batch is finished first.
    fn lease(&mut self) -> Lease<'a> {
        let buffers = &self.request.device.engine().bulk_buffers;
        if let Some(lease) = buffers.try_lease() {
            return lease;
        }
        self.batches.finish();
        buffers.lease()
    }
}
