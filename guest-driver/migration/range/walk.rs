// SPDX-License-Identifier: GPL-2.0-only

//! Moves one piece of an address space, mapping by mapping and batch by batch: while the device
//! copies one batch, the next is made ready.

use super::{
    super::{
        copy::{
            install,
            Copying, //
        },
        evict,
        tally::reason_of_obstacle,
        to_device::{
            self,
            Collection, //
        },
        to_system,
        DeviceMemory,
        Tally,
        BATCH_PAGES, //
    },
    explain::explain,
    merged::{
        front,
        Front, //
    },
    stragglers::Stragglers,
    Account,
    Order, //
};
use crate::{
    link::{
        Lane,
        Link, //
    },
    policy::Known,
    sys::{
        clear_hold::{
            ClearHold,
            Undisturbed, //
        },
        migrate::{
            Collected,
            Lease,
            Migration,
            Select, //
        },
        mm::{
            has_swapped_pages,
            mmap_lock_is_contended,
            Vma,
            VmaObstacle, //
        },
        mmap_lock::{
            MmapLocked,
            MmapWriteGuard, //
        },
        snapshot::Snapshot, //
    }, //
};
use core::ops::Range;
use hmm_protocol::Op;
use hmm_uapi::{
    Direction,
    MigrateFlags,
    SkipReason,
    SKIP_REASONS, //
};
use kernel::{
    mm::MmWithUser,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        AtomicFlag, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Batches begin and end where page tables do.
const TABLE_BYTES: usize = 2 << 20;
/// How often room is made for one batch.
const TRIES: usize = 4;
/// Batches of a walk that exist at once.
const DEPTH: usize = 2;
/// How often pages are tried again that somebody held.
const ROUNDS: usize = 2;
/// What those who hold pages are given to let go of them.
const PAUSE: Delta = Delta::from_micros(100);

/// What is to be done, and with what.
pub(super) struct Request<'a> {
    pub(super) memory: &'a DeviceMemory,
    pub(super) link: &'a Link,
    pub(super) mm: &'a MmWithUser,
    /// What is known of the process.
    pub(super) known: Option<&'a Known>,
    pub(super) order: Order,
    pub(super) snapshot: &'a Snapshot,
    /// Set when device memory is short.
    pub(super) was_short: &'a AtomicFlag,
}

/// Scratch space of one walk.
pub(super) struct Scratch {
    /// A mark for each page of a batch, for each batch.
    marks: KVec<KVVec<bool>>,
    snapshot: KVVec<usize>,
    stragglers: Stragglers,
}

impl Scratch {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let mut marks = KVec::with_capacity(DEPTH, GFP_KERNEL)?;
        for _ in 0..DEPTH {
            marks.push(
                KVVec::from_elem(false, BATCH_PAGES, GFP_KERNEL)?,
                GFP_KERNEL,
            )?;
        }
        Ok(Self {
            marks,
            snapshot: KVVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?,
            stragglers: Stragglers::new()?,
        })
    }
}

/// Moves `range` (page aligned), to its end, and then once more what somebody held.
///
/// # Errors
///
/// `ENODEV`: the device is dead, or going.
pub(super) fn walk(
    request: &Request<'_>,
    range: Range<usize>,
    scratch: &mut Scratch,
    tally: &mut Tally,
) -> Result {
    scratch.stragglers.set_open(true);
    once(request, range, scratch, tally)?;
    for rounds_left in (0..ROUNDS).rev() {
        scratch.stragglers.set_open(rounds_left > 0);
        let runs = scratch.stragglers.take();
        if !runs.is_empty() {
            fsleep(PAUSE);
        }
        for run in runs.iter() {
            once(request, run.clone(), scratch, tally)?;
        }
        scratch.stragglers.give_back(runs);
    }
    Ok(())
}

/// Moves what there is in `range` (page aligned).
fn once(
    request: &Request<'_>,
    range: Range<usize>,
    scratch: &mut Scratch,
    tally: &mut Tally,
) -> Result {
    let mut address = range.start;
    let mut may_evict = true;
    // Others may take what was made available, so that may be needed more than once.
    let mut tries = TRIES;
    while address < range.end {
        if request.link.is_stopping() {
            return Err(ENODEV);
        }
        let stop = hold(request, address..range.end, may_evict, scratch, tally);
        if stop.address > address {
            tries = TRIES;
        }
        address = stop.address;
        may_evict = true;
        if let Some(pages) = stop.needs_room {
            // If there is no room to be made, what fits is moved, and the rest is counted.
            let (memory, link, before) = (request.memory, request.link, request.order.ticket);
            request.was_short.store(true, Relaxed);
            tries -= 1;
            may_evict = evict::make_room(memory, link, pages, before) && tries > 0;
        }
    }
    Ok(())
}

/// Where a hold of the mmap lock ended.
struct Stop {
    address: usize,
    /// Why, if it is that so many pages need room on the device.
    needs_room: Option<usize>,
}

/// Takes the mmap lock and moves what there is, until somebody else needs the lock, or pages must
/// be evicted, if `may_evict`.
fn hold(
    request: &Request<'_>,
    range: Range<usize>,
    may_evict: bool,
    scratch: &mut Scratch,
    tally: &mut Tally,
) -> Stop {
    if request.order.direction == Direction::ToDevice && has_swapped_pages(request.mm) {
        // What a fault brings back from swap may be a merged page. None may come after the look for
        // them.
        let guard = MmapWriteGuard::lock(request.mm);
        hold_with(
            request,
            range,
            &guard,
            Some(&guard),
            may_evict,
            scratch,
            tally,
        )
    } else {
        let guard = request.mm.mmap_read_lock();
        hold_with(request, range, &guard, None, may_evict, scratch, tally)
    }
}

/// As [`hold`], with the lock held.
fn hold_with(
    request: &Request<'_>,
    range: Range<usize>,
    guard: &dyn MmapLocked,
    exclusive: Option<&MmapWriteGuard<'_>>,
    may_evict: bool,
    scratch: &mut Scratch,
    tally: &mut Tally,
) -> Stop {
    // Before a batch is begun: who has begun one must not wait for those who clear.
    let held = match (exclusive, request.known) {
        (None, Some(known)) => known.hold(range.clone(), request.memory.owner()),
        _ => None,
    };
    let undisturbed = match (exclusive, &held) {
        (Some(lock), _) => Some(Undisturbed::Locked(lock)),
        (None, held) => held.as_ref().map(Undisturbed::Held),
    };
    let mut hold = Hold {
        request,
        guard,
        exclusive,
        may_evict,
        select: match (request.order.direction, undisturbed) {
            (Direction::ToDevice, Some(undisturbed)) if request.order.huge => {
                Select::SystemHuge(undisturbed)
            }
            (Direction::ToDevice, _) => Select::System,
            (Direction::ToSystem, undisturbed) => {
                undisturbed.map_or(Select::Device, Select::DeviceHuge)
            }
        },
        pending: None,
        scratch,
        tally,
    };
    let mut stop = Stop {
        address: range.start,
        needs_room: None,
    };
    while stop.address < range.end {
        match hold.step(stop.address..range.end) {
            Ok(end) => stop.address = end,
            Err(NeedsRoom(pages)) => {
                stop.needs_room = Some(pages);
                break;
            }
        }
        // A writer that waits, as one that has the lock, keeps every fault of the process waiting.
        // So does who waits to clear.
        let is_contended = exclusive.is_some()
            || mmap_lock_is_contended(request.mm)
            || held.as_ref().is_some_and(ClearHold::is_contended);
        if is_contended || request.link.is_stopping() {
            break;
        }
    }
    hold.finish();
    stop
}

/// A batch was not begun because there is no room for so many pages.
struct NeedsRoom(usize);

/// One hold of the mmap lock.
struct Hold<'a, 's> {
    request: &'a Request<'a>,
    guard: &'a dyn MmapLocked,
    /// The same, if nobody else has the lock.
    exclusive: Option<&'a MmapWriteGuard<'a>>,
    may_evict: bool,
    /// What is collected.
    select: Select<'a>,
    /// The batch that the device is copying.
    pending: Option<Moving<'a>>,
    scratch: &'s mut Scratch,
    tally: &'s mut Tally,
}

/// A batch on its way.
struct Moving<'a> {
    copying: Copying<'a>,
    vma: Vma<'a>,
    range: Range<usize>,
    missing: KVVec<bool>,
}

impl<'a> Hold<'a, '_> {
    /// Deals with the front of `rest`: a gap, a mapping that cannot move, or one batch. Returns
    /// where it ends.
    fn step(&mut self, rest: Range<usize>) -> core::result::Result<usize, NeedsRoom> {
        let vma = match Vma::find(self.request.mm, self.guard, rest.start) {
            Some(vma) if vma.start() < rest.end => vma,
            _ => {
                self.skip(SkipReason::Unmapped, &rest);
                return Ok(rest.end);
            }
        };
        if rest.start < vma.start() {
            let gap = rest.start..vma.start();
            self.skip(SkipReason::Unmapped, &gap);
            return Ok(gap.end);
        }
        let end = rest.end.min(vma.end());
        if let Some(reason) = self.reason_to_skip(&vma) {
            self.skip(reason, &(rest.start..end));
            return Ok(end);
        }
        let lease = self.lease();
        let bytes = self.batch_bytes().min(lease.capacity() * PAGE_SIZE);
        let table = rest.start & !(TABLE_BYTES - 1);
        let batch = match self.front(&vma, rest.start..end.min(table.saturating_add(bytes))) {
            Ok(batch) => batch,
            Err((reason, left_out)) => {
                self.skip(reason, &left_out);
                return Ok(left_out.end);
            }
        };
        let batch_end = batch.end;
        self.start(vma, batch, lease)?;
        Ok(batch_end)
    }

    /// The front of a batch that may be collected; or one that must not, and why.
    fn front(
        &mut self,
        vma: &Vma<'_>,
        batch: Range<usize>,
    ) -> core::result::Result<Range<usize>, (SkipReason, Range<usize>)> {
        if self.request.order.direction == Direction::ToSystem {
            return Ok(batch);
        }
        if let Some(lock) = self.exclusive {
            lock.keep_faults_out(vma);
        }
        let entries = self.scratch.snapshot.as_mut_slice();
        match front(self.request, self.guard, batch.clone(), entries) {
            Ok(Front::Plain(plain)) => Ok(plain),
            Ok(Front::Merged(merged)) => Err((SkipReason::Ksm, merged)),
            // A mapping that cannot be looked at.
            Err(_) => Err((SkipReason::Special, batch)),
        }
    }

    fn skip(&mut self, reason: SkipReason, range: &Range<usize>) {
        let pages = (range.len() >> PAGE_SHIFT) as u64;
        let before = self.tally.skipped;
        self.tally.skip(self.request.link.stats(), reason, pages);
        self.trace_skips(&before, range);
    }

    /// Tells of the pages in `range` that were skipped since `before`.
    fn trace_skips(&self, before: &[u64; SKIP_REASONS], range: &Range<usize>) {
        let (link, trigger) = (self.request.link, self.request.order.trigger);
        self.tally.trace_since(before, link, trigger, range);
    }

    /// Why no page of the mapping is to move, if so.
    fn reason_to_skip(&self, vma: &Vma<'_>) -> Option<SkipReason> {
        let order = self.request.order;
        match (order.direction, vma.obstacle()) {
            // What went to the device before access was taken away must come back.
            (Direction::ToSystem, Some(VmaObstacle::NoAccess)) => None,
            (_, Some(obstacle)) => Some(reason_of_obstacle(obstacle)),
            (Direction::ToDevice, None)
                if vma.is_mlocked() && !order.flags.contains(MigrateFlags::MLOCKED) =>
            {
                Some(SkipReason::Mlocked)
            }
            // Also the pages that are not merged: while KSM merges one, its page table entry is there
            // before the record by which the kernel finds it again, and it can happen at any time.
            (Direction::ToDevice, None) if vma.is_mergeable() => Some(SkipReason::Ksm),
            _ => None,
        }
    }

    /// Bytes of a batch, a multiple of what a page table maps.
    fn batch_bytes(&self) -> usize {
        let (pool, order) = (self.request.memory.ops(), self.request.order);
        let entries = self.request.link.max_entries(Lane::Bulk) * PAGE_SIZE;
        let learned = pool.server().learned.batch_bytes();
        // What is beyond a limit would be collected for nothing, and cannot be reclaimed meanwhile.
        let allowed = match order.direction {
            Direction::ToDevice => pool.accounts().room(order.account),
            Direction::ToSystem => u64::MAX,
        };
        let allowed = usize::try_from(allowed)
            .unwrap_or(usize::MAX)
            .saturating_mul(PAGE_SIZE);
        let bytes = learned.min(entries).min(allowed);
        (bytes & !(TABLE_BYTES - 1)).max(TABLE_BYTES)
    }

    /// Buffers for a batch. Who has some must not wait for more, so without any left the pending
    /// batch comes first.
    fn lease(&mut self) -> Lease<'a> {
        let buffers = &self.request.memory.ops().server().bulk_buffers;
        if let Some(lease) = buffers.try_lease() {
            return lease;
        }
        self.finish();
        buffers.lease()
    }

    /// Has the device copy a batch, and deals with the one before meanwhile.
    fn start(
        &mut self,
        vma: Vma<'a>,
        range: Range<usize>,
        lease: Lease<'a>,
    ) -> core::result::Result<(), NeedsRoom> {
        let request = self.request;
        let (memory, link) = (request.memory, request.link);
        let pages = range.len() >> PAGE_SHIFT;
        let before = self.tally.skipped;
        // There are as many as batches at once; the pending one has the other.
        let mut missing = self.scratch.marks.pop().unwrap_or_default();
        missing.iter_mut().for_each(|mark| *mark = false);
        let mut account = Account {
            stats: link.stats(),
            tally: self.tally,
            missing: &mut missing,
        };
        let collected = match request.order.direction {
            Direction::ToDevice => to_device::collect(
                memory,
                vma,
                range.clone(),
                request.order,
                to_device::How {
                    select: self.select,
                    may_evict: self.may_evict,
                },
                lease,
                &mut account,
            ),
            Direction::ToSystem => {
                let range = range.clone();
                to_system::collect(
                    memory,
                    vma,
                    range,
                    request.order,
                    self.select,
                    lease,
                    &mut account,
                )
                .map(Collection::Ready)
            }
        };
        let migration = match collected {
            Ok(Collection::Ready(migration)) => migration,
            Ok(Collection::NeedsRoom(pages)) => {
                self.take_back(missing);
                return Err(NeedsRoom(pages));
            }
            Err(_) => {
                // The kernel refuses the mapping as a whole.
                account.skip(SkipReason::Special, pages);
                self.trace_skips(&before, &range);
                self.take_back(missing);
                return Ok(());
            }
        };
        self.trace_skips(&before, &range);
        let copying = Copying::start(memory, link, request.order.trigger, self.op(), migration);
        // The one before is done or about to be.
        self.finish();
        self.pending = Some(Moving {
            copying,
            vma,
            range,
            missing,
        });
        Ok(())
    }

    fn op(&self) -> Op {
        match self.request.order.direction {
            Direction::ToDevice => Op::ToDevice,
            Direction::ToSystem => Op::ToSystem,
        }
    }

    /// Waits for the pending batch, installs what was copied, and counts.
    fn finish(&mut self) {
        let Some(moving) = self.pending.take() else {
            return;
        };
        let Moving {
            copying,
            vma,
            range,
            mut missing,
        } = moving;
        let stats = self.request.link.stats();
        let before = self.tally.skipped;
        let mut account = Account {
            stats,
            tally: self.tally,
            missing: missing
                .get_mut(..range.len() >> PAGE_SHIFT)
                .unwrap_or_default(),
        };
        let (migration, failed) = copying.finish();
        account.skip(SkipReason::CopyFailed, failed);
        let copied: usize = migration.transfers().map(|transfer| transfer.pages).sum();
        keep_what_is_advised(self.request, &migration, range.start);
        let moved = install(stats, self.request.order.trigger, migration);
        account.skip(SkipReason::LostRace, copied - moved);
        account.tally.moved += moved as u64;
        let bytes = (moved * PAGE_SIZE) as u64;
        match self.request.order.direction {
            Direction::ToDevice => stats.bytes_to_device.add(bytes),
            Direction::ToSystem => stats.bytes_to_system.add(bytes),
        }
        if account.missing.iter().any(|&missing| missing) {
            let Scratch {
                snapshot,
                stragglers,
                ..
            } = &mut *self.scratch;
            let entries = snapshot.as_mut_slice();
            let (request, guard) = (self.request, self.guard);
            explain(request, guard, &vma, &range, account, stragglers, entries);
        }
        self.trace_skips(&before, &range);
        self.take_back(missing);
    }

    fn take_back(&mut self, marks: KVVec<bool>) {
        // Nothing but what was taken from there comes back.
        let result = self.scratch.marks.push_within_capacity(marks);
        debug_assert!(result.is_ok());
    }
}

/// Marks the device pages that the process wants to be kept. Whatever goes free loses its mark.
fn keep_what_is_advised(request: &Request<'_>, migration: &Migration<'_, Collected>, start: usize) {
    let space = (request.known)
        .map(|known| known.watcher())
        .filter(|space| space.has_advice());
    let (Some(space), Direction::ToDevice) = (space, request.order.direction) else {
        return;
    };
    for transfer in migration.transfers() {
        if !space.advice(start + transfer.index() * PAGE_SIZE).keep {
            continue;
        }
        if let Some(index) = request.memory.index_of_pfn(transfer.destination) {
            let pages = index..index + transfer.pages;
            request.memory.ops().keep(pages, true);
        }
    }
}
