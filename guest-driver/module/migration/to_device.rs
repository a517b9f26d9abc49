// SPDX-License-Identifier: GPL-2.0-only

//! The pages of a batch from system memory to the device.

use super::{
    batch_stats::BatchStats,
    migrate_args::MigrateArgs, //
};
use crate::{
    device::Device,
    pool::{
        AccountId,
        Accounts,
        Allocation,
        Ticket, //
    },
    stats::Stage,
    sys::{
        address_space::mm::Vma,
        device_memory::page::{
            Destination,
            HUGE_PAGES, //
        },
        migrate::{
            Collected,
            Lease,
            Migration,
            Select,
            Source,
            Visit, //
        }, //
    }, //
};
use core::ops::Range;
use hmm_uapi::{
    MigrateFlags,
    SkipReason,
    SKIP_REASONS, //
};
use kernel::prelude::*;

/// Why a page is not even tried: what the kernel would refuse after the copy is refused before it.
fn refused(source: Source<'_>, populate: bool) -> Option<SkipReason> {
    match source {
        Source::Hole | Source::HugeHole if populate => None,
        Source::Hole | Source::HugeHole => Some(SkipReason::Hole),
        Source::Page(page) | Source::HugePage(page) if page.is_ksm() => Some(SkipReason::Ksm),
        Source::Page(page) | Source::HugePage(page) if !page.is_anon() => Some(SkipReason::File),
        Source::Page(_) | Source::HugePage(_) | Source::Skipped => None,
    }
}

/// Device pages for a batch, in as few runs as the device has.
struct DevicePages<'a> {
    device: &'a Device,
    /// Whether there are none for a huge page.
    refuse_huge: bool,
    ticket: Ticket,
    account: AccountId,
    /// Why there was no page the last time that there was none.
    short: SkipReason,
    allocation: Option<Allocation<'a, Device>>,
    /// Pages that the batch still needs.
    wanted: usize,
}

impl DevicePages<'_> {
    fn accounts(&self) -> &Accounts {
        self.device.pages().accounts()
    }

    /// The next page; `None` if the device is full, or the process has as much as it may have.
    fn next(&mut self) -> Option<Destination> {
        if !self.accounts().charge(self.account, 1) {
            self.short = SkipReason::OverLimit;
            return None;
        }
        let mut destination = self.allocation.as_mut().and_then(Allocation::next);
        if destination.is_none() {
            let (device, wanted) = (self.device, self.wanted);
            self.allocation = Allocation::new(device.pool(), wanted, self.ticket, self.account);
            destination = self.allocation.as_mut().and_then(Allocation::next);
        }
        self.wanted = self.wanted.saturating_sub(1);
        if destination.is_none() {
            self.accounts().uncharge(self.account, 1);
            self.short = SkipReason::NoDeviceMemory;
        }
        destination
    }

    /// Pages for a huge page; `None` as for `next`.
    fn huge(&mut self) -> Option<Destination> {
        if self.refuse_huge {
            self.short = SkipReason::NoDeviceMemory;
            return None;
        }
        if !self.accounts().charge(self.account, HUGE_PAGES) {
            self.short = SkipReason::OverLimit;
            return None;
        }
        let destination = Allocation::huge(self.device.pool(), self.ticket, self.account);
        if destination.is_none() {
            self.accounts().uncharge(self.account, HUGE_PAGES);
            self.short = SkipReason::NoDeviceMemory;
        }
        destination
    }

    /// Gives the pages of a huge page a destination each, as long as there are any. Returns how
    /// many got one.
    fn split(&mut self, visit: &mut Visit<'_, '_>) -> usize {
        if !matches!(visit.source(), Source::HugePage(_)) {
            return 0;
        }
        self.wanted += HUGE_PAGES;
        let given = visit.give_each(|_| self.next());
        // What was not given is not wanted any more; the page that was refused is counted already.
        self.wanted -= (HUGE_PAGES - given).saturating_sub(1);
        given
    }
}

/// What came of a range.
pub(super) enum Collection<'a> {
    /// Its pages are on their way.
    Ready(Migration<'a, Collected>),
    /// So many pages do not fit. Nothing is counted, and all pages are where they were.
    NeedsRoom(usize),
}

/// How pages are collected.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    /// One of the system's.
    pub(super) select: Select<'a>,
    /// Whether the caller can make room.
    pub(super) may_evict: bool,
}

/// Collects the pages of `range` that can move and gives them destinations; counts the others,
/// except those that the kernel did not collect, which are marked. If there is not enough device
/// memory for all, that is said if the caller can make room, and otherwise the rest stays and is
/// counted.
///
/// # Errors
///
/// `EINVAL`: the kernel refuses the mapping.
pub(super) fn collect<'a>(
    device: &'a Device,
    vma: Vma<'a>,
    range: Range<usize>,
    args: MigrateArgs,
    how: How<'a>,
    lease: Lease<'a>,
    account: &mut BatchStats<'_>,
) -> Result<Collection<'a>> {
    let How { select, may_evict } = how;
    let time = account.stats.measure(Stage::Setup, args.trigger);
    let mut migration = Migration::of_range(vma, range, select, device.memory(), lease)?;
    let _time = time.then(Stage::Destinations);
    let populate = args.flags.contains(MigrateFlags::POPULATE) && vma.may_be_populated();

    let collected = migration.collected_pages();
    let mut wanted = collected.single;
    let mut all = wanted + collected.huge;
    if populate {
        wanted += collected.single_holes;
        all += collected.single_holes + collected.huge_holes;
    }
    // Nothing is evicted for pages beyond the limit.
    let room = device.pages().accounts().room(args.account);
    let all = all.min(usize::try_from(room).unwrap_or(usize::MAX));
    if may_evict && device.pages().available_pages() < all {
        return Ok(Collection::NeedsRoom(all));
    }

    let mut pages = DevicePages {
        device,
        refuse_huge: args.refuse_huge,
        ticket: args.ticket,
        account: args.account,
        short: SkipReason::NoDeviceMemory,
        allocation: None,
        wanted,
    };
    let mut skipped = [0; SKIP_REASONS];
    let mut skip = |reason: SkipReason, pages: usize| {
        if let Some(slot) = skipped.get_mut(reason as usize) {
            *slot += pages;
        }
    };
    let mut is_full = false;
    migration.for_each_source(|visit| {
        if is_full {
            return;
        }
        let refused = refused(visit.source(), populate);
        let span = visit.pages();
        match (visit.source(), refused) {
            (Source::Skipped, _) => account.not_collected(visit.index()),
            (_, Some(reason)) => skip(reason, span),
            (Source::Hole | Source::Page(_), None) => match pages.next() {
                Some(destination) => visit.give(destination),
                None => {
                    is_full = may_evict && pages.short == SkipReason::NoDeviceMemory;
                    skip(pages.short, 1);
                }
            },
            (Source::HugeHole | Source::HugePage(_), None) => {
                if let Some(destination) = pages.huge() {
                    visit.give(destination);
                } else if visit.split_hole() {
                    pages.wanted += HUGE_PAGES;
                } else {
                    let given = pages.split(visit);
                    is_full =
                        may_evict && given < span && pages.short == SkipReason::NoDeviceMemory;
                    skip(pages.short, span - given);
                }
            }
        }
    });
    if is_full {
        // Another request took the free blocks. Drop the destinations chosen so far and let the caller
        // evict.
        return Ok(Collection::NeedsRoom(all));
    }
    for (reason, pages) in SkipReason::ALL.into_iter().zip(skipped) {
        account.skip(reason, pages);
    }
    Ok(Collection::Ready(migration))
}
