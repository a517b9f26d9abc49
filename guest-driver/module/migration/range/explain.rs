// SPDX-License-Identifier: GPL-2.0-only

//! Why the kernel did not collect pages. It does not say, so this looks where they are.

use super::request::Request;
use crate::{
    engine::RetryRuns,
    migration::{
        batch_stats::BatchStats,
        tally::reason_of_place, //
    },
    sys::{
        address_space::{
            locked::MmapLocked,
            mm::Vma,
            snapshot::Place, //
        },
        device_memory::owner::Owner, //
    }, //
};
use core::ops::Range;
use hmm_uapi::{
    Direction,
    SkipReason, //
};
use kernel::page::PAGE_SIZE;

/// Counts the pages of `range` that `account` has marks for, by reason, unless `stragglers` has them
/// tried again. `entries` is scratch space of as many elements as pages.
pub(super) fn explain(
    request: &Request<'_>,
    guard: &dyn MmapLocked,
    vma: &Vma<'_>,
    range: &Range<usize>,
    account: BatchStats<'_>,
    stragglers: &mut RetryRuns,
    entries: &mut [usize],
) {
    let BatchStats {
        stats,
        tally,
        missing,
    } = account;
    let direction = request.args.direction;
    let own = request.device.memory().owner();
    let address = |page| range.start + page * PAGE_SIZE;
    let mut look = |owner, reason: &dyn Fn(Place) -> Option<SkipReason>| {
        request
            .snapshot
            .look(guard, range.clone(), owner, entries, |page, place| {
                let mark = missing.get_mut(page).filter(|mark| **mark);
                if let (Some(mark), Some(reason)) = (mark, reason(place)) {
                    *mark = false;
                    if !stragglers.remember(reason, address(page)..address(page + 1)) {
                        tally.skip(stats, reason, 1);
                    }
                }
            })
    };
    // First, since one owner does not see the pages of another: a huge one looks like what is special.
    let mut result = Ok(());
    for owner in Owner::all().filter(|&owner| owner != own) {
        result = result.and(look(owner, &|place| {
            matches!(place, Place::Device(_)).then_some(SkipReason::OtherDevice)
        }));
    }
    result = result.and(look(own, &|place| {
        if let (Place::Device(pfn), Direction::ToDevice) = (place, direction) {
            // It is wanted where it is, so it must not be evicted for its neighbours.
            if let Some(index) = request.device.memory().index_of_pfn(pfn) {
                request.device.pages().touch(index, request.args.ticket);
            }
        }
        (place != Place::Nowhere).then(|| reason_of_place(direction, place, vma))
    }));
    let rest = match result {
        Ok(()) => reason_of_place(direction, Place::Nowhere, vma),
        // The mapping cannot be looked at, so nothing better is known.
        Err(_) => SkipReason::Busy,
    };
    let count = missing.iter().filter(|&&missing| missing).count();
    tally.skip(stats, rest, count as u64);
}
