// SPDX-License-Identifier: GPL-2.0-only

//! What became of every page of a request.

use crate::{
    device::Device,
    stats::Stats,
    sys::{
        address_space::{
            mm::{
                has_swapped_pages,
                Vma,
                VmaObstacle, //
            },
            snapshot::Place, //
        },
        services::trace, //
    }, //
};
use core::ops::Range;
use hmm_uapi::{
    Direction,
    SkipReason,
    Trigger,
    SKIP_REASONS, //
};

/// Pages of one request that moved, and those that did not, by reason.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) moved: u64,
    pub(crate) skipped: [u64; SKIP_REASONS],
    /// Batches submitted and doorbells rung for the request. Evictions that make room for it do not
    /// count.
    pub(crate) batches: u64,
    pub(crate) doorbells: u64,
}

impl Tally {
    /// Adds what another counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.moved += other.moved;
        for (sum, value) in self.skipped.iter_mut().zip(&other.skipped) {
            *sum += value;
        }
        self.batches += other.batches;
        self.doorbells += other.doorbells;
    }

    /// Pages that did not move for this reason.
    pub(crate) fn skipped_for(&self, reason: SkipReason) -> u64 {
        self.skipped.get(reason as usize).copied().unwrap_or(0)
    }

    /// Counts pages that did not move, here and in the device's counters.
    pub(super) fn skip(&mut self, stats: &Stats, reason: SkipReason, pages: u64) {
        self.skip_in_reply(reason, pages);
        stats.skip(reason, pages);
    }

    /// Counts pages that did not move, here only.
    pub(super) fn skip_in_reply(&mut self, reason: SkipReason, pages: u64) {
        if let Some(slot) = self.skipped.get_mut(reason as usize) {
            *slot += pages;
        }
    }

    /// Tells, reason by reason, of the pages in `range` that were skipped since `before`.
    pub(super) fn trace_since(
        &self,
        before: &[u64; SKIP_REASONS],
        device: &Device,
        trigger: Trigger,
        range: &Range<usize>,
    ) {
        for (reason, (now, before)) in SkipReason::ALL.iter().zip(self.skipped.iter().zip(before)) {
            if now > before {
                let (trigger, reason) = (trigger.name(), reason.name());
                trace::skip(device.vdev(), trigger, reason, range, now - before);
            }
        }
    }
}

/// The reason for what keeps all pages of a mapping from moving.
pub(super) fn reason_of_obstacle(obstacle: VmaObstacle) -> SkipReason {
    match obstacle {
        VmaObstacle::NoAccess => SkipReason::NoAccess,
        VmaObstacle::Special => SkipReason::Special,
        VmaObstacle::Hugetlb => SkipReason::Hugetlb,
        VmaObstacle::Shared => SkipReason::File,
    }
}

/// The likely reason why the kernel did not collect a page of `vma` that is found at `place`
/// afterwards.
pub(super) fn reason_of_place(direction: Direction, place: Place, vma: &Vma<'_>) -> SkipReason {
    match (place, direction) {
        (Place::Special, _) => SkipReason::Special,
        (Place::Device(_), Direction::ToDevice)
        | (Place::System | Place::Merged | Place::SystemReferenced, Direction::ToSystem) => {
            SkipReason::Already
        }
        (Place::Merged, Direction::ToDevice) => SkipReason::Ksm,
        (Place::SystemReferenced, Direction::ToDevice) => SkipReason::Pinned,
        (Place::System, Direction::ToDevice) | (Place::Device(_), Direction::ToSystem) => {
            SkipReason::Busy
        }
        (Place::Nowhere, _) if !vma.is_anonymous() => SkipReason::Hole,
        // Holes of anonymous mappings are collected, so what is not there is in swap, a marker, or
        // on its way.
        (Place::Nowhere, _) if vma.may_have_markers() || has_swapped_pages(vma.mm()) => {
            SkipReason::Swapped
        }
        (Place::Nowhere, _) => SkipReason::Busy,
    }
}
