// SPDX-License-Identifier: GPL-2.0-only

//! Brings home what lies in a part of a mapping, for nobody who waits for a certain page of it.

use super::{
    copy::{
        install,
        Copying, //
    },
    DeviceMemory, //
};
use crate::{
    link::Link,
    stats::Stage,
    sys::{
        address_space::mm::Vma,
        device_memory::{
            page::Destination,
            page_stock::PageStock, //
        },
        migrate::{
            Lease,
            Migration,
            Select,
            Source, //
        }, //
    }, //
};
use core::ops::Range;
use hmm_protocol::Op;
use hmm_uapi::Trigger;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

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
    memory: &'a DeviceMemory,
    link: &'a Link,
    trigger: Trigger,
    vma: Vma<'a>,
    range: Range<usize>,
    select: Select<'a>,
    lease: Lease<'a>,
) -> Result<Home> {
    let start = range.start;
    let time = link.stats().measure(Stage::Setup, trigger);
    let mut migration = Migration::of_range(vma, range, select, memory, lease)?;
    let time = time.then(Stage::Destinations);
    let collected = migration.collected_pages();
    let mut stock = PageStock::new(collected.single);
    migration.for_each_source(|visit| {
        let address = start + visit.index() * PAGE_SIZE;
        match visit.source() {
            Source::Page(_) => {
                if let Ok(page) = stock.take_for(&vma, address) {
                    visit.give(page);
                }
            }
            Source::HugePage(_) => match Destination::huge_system_for(&vma, address) {
                Ok(page) => visit.give(page),
                Err(_) => {
                    let page_for = |page| Destination::system_for(&vma, address + page * PAGE_SIZE);
                    visit.give_each(|page| page_for(page).ok());
                }
            },
            Source::Skipped | Source::Hole | Source::HugeHole => {}
        }
    });
    drop(time);
    let copying = Copying::start(memory, link, trigger, Op::ToSystem, migration);
    let (migration, _failed) = copying.finish();
    Ok(Home {
        collected: collected.single + collected.huge,
        moved: install(link.stats(), trigger, migration),
    })
}
