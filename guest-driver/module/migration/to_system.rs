// SPDX-License-Identifier: GPL-2.0-only

//! The pages of a batch from the device to system memory, counted for a request or on their own.

use super::{
    batch_stats::BatchStats,
    copy::{
        install,
        Copying, //
    },
    destinations::SystemDestinations,
    migrate_args::MigrateArgs, //
};
use crate::{
    device::Device,
    stats::Stage,
    sys::{
        address_space::mm::Vma,
        migrate::{
            Collected,
            Lease,
            Migration,
            Select,
            Source, //
        }, //
    }, //
};
use core::ops::Range;
use hmm_protocol::Op;
use hmm_uapi::{
    SkipReason,
    Trigger, //
};
use kernel::prelude::*;

/// Collects the device pages of `range` and gives them destinations; counts the others, except
/// those that the kernel did not collect, which are marked. `select` is one of the device's.
///
/// # Errors
///
/// `EINVAL`: the kernel refuses the mapping.
pub(super) fn collect<'a>(
    device: &'a Device,
    vma: Vma<'a>,
    range: Range<usize>,
    args: MigrateArgs,
    select: Select<'a>,
    lease: Lease<'a>,
    account: &mut BatchStats<'_>,
) -> Result<Migration<'a, Collected>> {
    let start = range.start;
    let time = account.stats.measure(Stage::Setup, args.trigger);
    let mut migration = Migration::of_range(vma, range, select, device.memory(), lease)?;
    let _time = time.then(Stage::Destinations);
    let mut destinations =
        SystemDestinations::for_mapping(vma, start, &migration).refusing_huge(args.refuse_huge);
    migration.for_each_source(|visit| match visit.source() {
        Source::Skipped => account.not_collected(visit.index()),
        Source::Hole | Source::HugeHole => account.skip(SkipReason::Hole, visit.pages()),
        Source::Page(_) | Source::HugePage(_) => match destinations.give(visit) {
            0 => {}
            missing => account.skip(SkipReason::NoSystemMemory, missing),
        },
    });
    Ok(migration)
}

/// What became of the pages.
pub(super) struct Migrated {
    /// Pages that the kernel collected.
    pub(super) collected: usize,
    /// Pages that migrated. The others stay: they found no page in system memory, or were not copied.
    pub(super) moved: usize,
}

/// Migrates back what `range` of `vma` has on the device, as one batch. `select` is one of the
/// device's.
///
/// # Errors
///
/// `EINVAL`: the kernel refuses the mapping.
pub(super) fn migrate<'a>(
    device: &'a Device,
    trigger: Trigger,
    vma: Vma<'a>,
    range: Range<usize>,
    select: Select<'a>,
    lease: Lease<'a>,
) -> Result<Migrated> {
    let start = range.start;
    let time = device.stats().measure(Stage::Setup, trigger);
    let mut migration = Migration::of_range(vma, range, select, device.memory(), lease)?;
    let time = time.then(Stage::Destinations);
    let collected = migration.collected_pages();
    let mut destinations = SystemDestinations::for_mapping(vma, start, &migration);
    migration.for_each_source(|visit| {
        // A page without a destination stays where it is.
        destinations.give(visit);
    });
    drop(time);
    let copying = Copying::start(device, trigger, Op::ToSystem, migration);
    let (migration, _failed) = copying.finish();
    Ok(Migrated {
        collected: collected.single + collected.huge,
        moved: install(device.stats(), trigger, migration),
    })
}
