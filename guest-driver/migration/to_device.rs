// SPDX-License-Identifier: GPL-2.0-only

//! One batch from system memory to the device.

use super::{
    copy::copy,
    range::{
        Job,
        Order, //
    },
    DeviceMemory,
    Engine, //
};
use crate::{
    pool::Allocation,
    sys::{
        migrate::{
            Buffers,
            Collected,
            Migration,
            Select,
            Source, //
        },
        mm::Vma,
        page::{
            Destination,
            HUGE_PAGES, //
        }, //
    }, //
};
use core::ops::Range;
use hmm_protocol::Op;
use hmm_uapi::{
    MigrateFlags,
    SkipReason, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

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
    memory: &'a DeviceMemory,
    allocation: Option<Allocation<'a, Engine>>,
    /// Pages that the batch still needs.
    wanted: usize,
}

impl DevicePages<'_> {
    /// The next page; `None` if the device is full.
    fn next(&mut self) -> Option<Destination> {
        let mut destination = self.allocation.as_mut().and_then(Allocation::next);
        if destination.is_none() {
            self.allocation = Allocation::new(self.memory, self.wanted);
            destination = self.allocation.as_mut().and_then(Allocation::next);
        }
        self.wanted = self.wanted.saturating_sub(1);
        destination
    }

    /// Gives the pages of the huge page at `head` a destination each, as long as there are any.
    /// Returns how many got one. A huge hole stays as it is.
    fn split(&mut self, migration: &mut Migration<'_, Collected>, head: usize) -> usize {
        if !matches!(migration.source(head), Source::HugePage(_)) {
            return 0;
        }
        self.wanted += HUGE_PAGES;
        for page in 0..HUGE_PAGES {
            let Some(destination) = self.next() else {
                self.wanted -= HUGE_PAGES - page - 1;
                return page;
            };
            if page == 0 {
                migration.set_destination(head, destination);
            } else {
                migration.set_tail_destination(head, page, destination);
            }
        }
        HUGE_PAGES
    }
}

/// Moves the pages of `range` that can move, and counts the others, except those that the kernel
/// did not collect.
///
/// # Errors
///
/// `EINVAL`: the kernel refuses the mapping.
pub(super) fn run<'a>(
    job: &mut Job<'a>,
    vma: &'a Vma<'_>,
    range: Range<usize>,
    order: Order,
    buffers: &'a mut Buffers,
) -> Result {
    let (memory, link) = (job.memory, job.link);
    let select = if order.huge {
        Select::SystemHuge
    } else {
        Select::System
    };
    let mut migration = Migration::of_range(vma, range, select, memory, buffers)?;
    let populate = order.flags.contains(MigrateFlags::POPULATE) && vma.is_anonymous();

    let mut pages = DevicePages {
        memory,
        allocation: None,
        wanted: migration
            .sources()
            .filter(|(_, source)| matches!(source, Source::Hole | Source::Page(_)))
            .filter(|(_, source)| refused(*source, populate).is_none())
            .count(),
    };
    let mut index = 0;
    while index < migration.len() {
        let source = migration.source(index);
        let refused = refused(source, populate);
        let (at, span) = (index, source.pages());
        index += span;
        match (source, refused) {
            (Source::Skipped, _) => job.mark_not_collected(at),
            (_, Some(reason)) => job.skip(reason, span),
            (Source::Hole | Source::Page(_), None) => match pages.next() {
                Some(destination) => migration.set_destination(at, destination),
                None => job.skip(SkipReason::NoDeviceMemory, 1),
            },
            (Source::HugeHole | Source::HugePage(_), None) => {
                if let Some(destination) = Allocation::huge(memory) {
                    migration.set_destination(at, destination);
                } else {
                    let given = pages.split(&mut migration, at);
                    job.skip(SkipReason::NoDeviceMemory, span - given);
                }
            }
        }
    }
    drop(pages);

    let moved = job.install_after_copy(migration, Op::ToDevice);
    link.stats().bytes_to_device.add((moved * PAGE_SIZE) as u64);
    Ok(())
}

impl<'a> Job<'a> {
    /// Copies what has a destination, installs what was copied, and counts. Returns the number of
    /// pages that moved.
    pub(super) fn install_after_copy(
        &mut self,
        mut migration: Migration<'a, Collected>,
        op: Op,
    ) -> usize {
        let failed = copy(self.memory, self.link, self.lane, op, &mut migration);
        self.skip(SkipReason::CopyFailed, failed);
        let copied: usize = migration.transfers().map(|transfer| transfer.pages).sum();
        let installed = migration.install();
        let moved = installed.moved();
        drop(installed);
        self.skip(SkipReason::LostRace, copied - moved);
        self.tally.moved += moved as u64;
        moved
    }
}
