// SPDX-License-Identifier: GPL-2.0-only

//! The pages of a batch from the device to system memory.

use super::{
    account::Account,
    destinations::SystemDestinations,
    order::Order, //
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
use hmm_uapi::SkipReason;
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
    order: Order,
    select: Select<'a>,
    lease: Lease<'a>,
    account: &mut Account<'_>,
) -> Result<Migration<'a, Collected>> {
    let start = range.start;
    let time = account.stats.measure(Stage::Setup, order.trigger);
    let mut migration = Migration::of_range(vma, range, select, device.memory(), lease)?;
    let _time = time.then(Stage::Destinations);
    let mut destinations = SystemDestinations::for_mapping(vma, start, &migration);
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
