// SPDX-License-Identifier: GPL-2.0-only

//! Brings home what lies in a part of a mapping, for nobody who waits for a certain page of it.

use super::{
    copy::{
        install,
        Copying, //
    },
    destinations::SystemDestinations, //
};
use crate::{
    device::Device,
    stats::Stage,
    sys::{
        address_space::mm::Vma,
        migrate::{
            Lease,
            Migration,
            Select, //
        }, //
    }, //
};
use core::ops::Range;
use hmm_protocol::Op;
use hmm_uapi::Trigger;
use kernel::prelude::*;

/// What became of it, in pages.
pub(super) struct Home {
    /// That the kernel collected.
    pub(super) collected: usize,
    /// That came. The others stay: they found no page in system memory, or were not copied.
    pub(super) moved: usize,
}

/// Brings home what `range` of `vma` has on the device, as one batch. `select` is one of the
/// device's.
///
/// # Errors
///
/// `EINVAL`: the kernel refuses the mapping.
pub(super) fn bring<'a>(
    device: &'a Device,
    trigger: Trigger,
    vma: Vma<'a>,
    range: Range<usize>,
    select: Select<'a>,
    lease: Lease<'a>,
) -> Result<Home> {
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
    Ok(Home {
        collected: collected.single + collected.huge,
        moved: install(device.stats(), trigger, migration),
    })
}
