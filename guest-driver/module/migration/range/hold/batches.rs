// SPDX-License-Identifier: GPL-2.0-only

//! Batches of a hold: the device copies one while the next is collected.

use crate::{
    engine::WalkBuffers,
    migration::{
        batch_stats::BatchStats,
        copy::{
            install,
            Copying, //
        },
        range::{
            explain::explain,
            request::Request, //
        },
        tally::Tally,
        to_device::{
            self,
            Collection, //
        },
        to_system, //
    },
    sys::{
        address_space::{
            locked::MmapLocked, //
            mm::Vma,
        },
        migrate::{
            Collected,
            Lease,
            Migration,
            Select, //
        }, //
    }, //
};
use core::ops::Range;
use hmm_protocol::Op;
use hmm_uapi::{
    Direction,
    SkipReason,
    SKIP_REASONS, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// A batch was not begun because there is no room for so many pages.
pub(super) struct NeedsRoom(pub(super) usize);

/// A batch in flight.
struct InFlight<'a> {
    copying: Copying<'a>,
    vma: Vma<'a>,
    range: Range<usize>,
    missing: KVVec<bool>,
}

/// The batches of one hold of the mmap lock.
pub(super) struct Batches<'a, 's> {
    request: &'a Request<'a>,
    guard: &'a dyn MmapLocked,
    may_evict: bool,
    /// The batch that the device is copying.
    pending: Option<InFlight<'a>>,
    pub(super) scratch: &'s mut WalkBuffers,
    tally: &'s mut Tally,
}

impl<'a, 's> Batches<'a, 's> {
    /// None yet. If `may_evict`, [`Self::start`] asks for room rather than leave pages.
    pub(super) fn new(
        request: &'a Request<'a>,
        guard: &'a dyn MmapLocked,
        may_evict: bool,
        scratch: &'s mut WalkBuffers,
        tally: &'s mut Tally,
    ) -> Self {
        Self {
            request,
            guard,
            may_evict,
            pending: None,
            scratch,
            tally,
        }
    }

    /// Counts the pages of `range`, none of which is to move.
    pub(super) fn skip(&mut self, reason: SkipReason, range: &Range<usize>) {
        let pages = (range.len() >> PAGE_SHIFT) as u64;
        let before = self.tally.skipped;
        self.tally.skip(self.request.device.stats(), reason, pages);
        self.trace_skips(&before, range);
    }

    /// Tells of the pages in `range` that were skipped since `before`.
    fn trace_skips(&self, before: &[u64; SKIP_REASONS], range: &Range<usize>) {
        let (device, trigger) = (self.request.device, self.request.args.trigger);
        self.tally.trace_since(before, device, trigger, range);
    }

    /// Has the device copy a batch, and deals with the one before meanwhile.
    pub(super) fn start(
        &mut self,
        vma: Vma<'a>,
        range: Range<usize>,
        select: Select<'a>,
        lease: Lease<'a>,
    ) -> core::result::Result<(), NeedsRoom> {
        let request = self.request;
        let device = request.device;
        let pages = range.len() >> PAGE_SHIFT;
        let before = self.tally.skipped;
        // There are as many as batches at once; the pending one has the other.
        let mut missing = self.scratch.marks.pop().unwrap_or_default();
        if let Some(marks) = missing.get_mut(..pages) {
            marks.fill(false);
        }
        let mut account = BatchStats {
            stats: device.stats(),
            tally: self.tally,
            missing: &mut missing,
        };
        let collected = match request.args.direction {
            Direction::ToDevice => to_device::collect(
                device,
                vma,
                range.clone(),
                request.args,
                to_device::How {
                    select,
                    may_evict: self.may_evict,
                },
                lease,
                &mut account,
            ),
            Direction::ToSystem => {
                let range = range.clone();
                to_system::collect(
                    device,
                    vma,
                    range,
                    request.args,
                    select,
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
        let copying = Copying::start(device, request.args.trigger, self.op(), migration);
        // The one before is done or about to be.
        self.finish();
        self.pending = Some(InFlight {
            copying,
            vma,
            range,
            missing,
        });
        Ok(())
    }

    fn op(&self) -> Op {
        match self.request.args.direction {
            Direction::ToDevice => Op::ToDevice,
            Direction::ToSystem => Op::ToSystem,
        }
    }

    /// Waits for the pending batch, installs what was copied, and counts.
    pub(super) fn finish(&mut self) {
        let Some(moving) = self.pending.take() else {
            return;
        };
        let InFlight {
            copying,
            vma,
            range,
            mut missing,
        } = moving;
        let stats = self.request.device.stats();
        let before = self.tally.skipped;
        let mut account = BatchStats {
            stats,
            tally: self.tally,
            missing: missing
                .get_mut(..range.len() >> PAGE_SHIFT)
                .unwrap_or_default(),
        };
        let (migration, failed, sent) = copying.finish_counted();
        account.tally.batches += sent.batches;
        account.tally.doorbells += sent.doorbells;
        account.skip(reason_of_failure(self.request), failed);
        let copied: usize = migration.transfers().map(|transfer| transfer.pages).sum();
        keep_what_is_advised(self.request, &migration, range.start);
        let moved = install(stats, self.request.args.trigger, migration);
        account.skip(SkipReason::LostRace, copied - moved);
        account.tally.moved += moved as u64;
        let bytes = (moved * PAGE_SIZE) as u64;
        match self.request.args.direction {
            Direction::ToDevice => stats.bytes_to_device.add(bytes),
            Direction::ToSystem => stats.bytes_to_system.add(bytes),
        }
        if account.missing.iter().any(|&missing| missing) {
            let WalkBuffers {
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

/// What a page is counted as that the device did not copy. It is where it was, unless that was on a
/// device that is dead.
fn reason_of_failure(request: &Request<'_>) -> SkipReason {
    match request.args.direction {
        Direction::ToSystem if request.device.link().is_dead() => SkipReason::Lost,
        _ => SkipReason::CopyFailed,
    }
}

/// Marks the device pages that the process wants to be kept. Whatever goes free loses its mark.
fn keep_what_is_advised(request: &Request<'_>, migration: &Migration<'_, Collected>, start: usize) {
    let space = (request.known)
        .map(|known| known.watcher())
        .filter(|space| space.has_advice());
    let (Some(space), Direction::ToDevice) = (space, request.args.direction) else {
        return;
    };
    for transfer in migration.transfers() {
        let Some(mut index) = request.device.memory().index_of_pfn(transfer.destination) else {
            continue;
        };
        let mut address = start + transfer.index() * PAGE_SIZE;
        let end = address + transfer.pages * PAGE_SIZE;
        while address < end {
            let (advice, next) = space.run(address..end);
            let pages = (next - address) / PAGE_SIZE;
            if advice.keep {
                request.device.pages().keep(index..index + pages, true);
            }
            address = next;
            index += pages;
        }
    }
}
