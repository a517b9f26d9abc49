// SPDX-License-Identifier: GPL-2.0-only

//! One batch from system memory to the device.

use super::{
    copy::copy,
    range::Job, //
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
        mm::Vma, //
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
        Source::Hole if populate => None,
        Source::Hole => Some(SkipReason::Hole),
        Source::Page(page) if page.is_ksm() => Some(SkipReason::Ksm),
        Source::Page(page) if !page.is_anon() => Some(SkipReason::File),
        Source::Page(_) | Source::Skipped => None,
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
    flags: MigrateFlags,
    buffers: &'a mut Buffers,
) -> Result {
    let (memory, link) = (job.memory, job.link);
    let mut migration = Migration::of_range(vma, range, Select::System, memory, buffers)?;
    let populate = flags.contains(MigrateFlags::POPULATE) && vma.is_anonymous();

    let mut wanted = (0..migration.len())
        .map(|page| migration.source(page))
        .filter(|&source| !matches!(source, Source::Skipped) && refused(source, populate).is_none())
        .count();

    let mut allocation = None;
    for page in 0..migration.len() {
        let source = migration.source(page);
        if matches!(source, Source::Skipped) {
            job.mark_not_collected(page);
            continue;
        }
        if let Some(reason) = refused(source, populate) {
            job.skip(reason);
            continue;
        }
        let mut destination = allocation.as_mut().and_then(Allocation::next);
        if destination.is_none() {
            allocation = Allocation::new(memory, wanted);
            destination = allocation.as_mut().and_then(Allocation::next);
        }
        wanted -= 1;
        match destination {
            Some(destination) => migration.set_destination(page, destination),
            None => job.skip(SkipReason::NoDeviceMemory),
        }
    }
    drop(allocation);

    let tried = job.install_after_copy(migration, Op::ToDevice);
    link.stats().bytes_to_device.add((tried * PAGE_SIZE) as u64);
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
        for _ in 0..failed {
            self.skip(SkipReason::CopyFailed);
        }
        let copied = (0..migration.len())
            .filter(|&page| migration.destination(page).is_some())
            .count();
        let installed = migration.install();
        let moved = (0..installed.len())
            .filter(|&page| installed.has_moved(page))
            .count();
        drop(installed);
        for _ in moved..copied {
            self.skip(SkipReason::LostRace);
        }
        self.tally.moved += moved as u64;
        moved
    }
}
