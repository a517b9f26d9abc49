// SPDX-License-Identifier: GPL-2.0-only

//! The pages of a batch from the device to system memory.

use super::{
    range::{
        Account,
        Order, //
    },
    DeviceMemory, //
};
use crate::{
    stats::Stage,
    sys::{
        address_space::mm::Vma,
        device_memory::{
            page::Destination,
            page_stock::PageStock, //
        },
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
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// Collects the device pages of `range` and gives them destinations; counts the others, except
/// those that the kernel did not collect, which are marked. `select` is one of the device's.
///
/// # Errors
///
/// `EINVAL`: the kernel refuses the mapping.
pub(super) fn collect<'a>(
    memory: &'a DeviceMemory,
    vma: Vma<'a>,
    range: Range<usize>,
    order: Order,
    select: Select<'a>,
    lease: Lease<'a>,
    account: &mut Account<'_>,
) -> Result<Migration<'a, Collected>> {
    let start = range.start;
    let time = account.stats.measure(Stage::Setup, order.trigger);
    let mut migration = Migration::of_range(vma, range, select, memory, lease)?;
    let _time = time.then(Stage::Destinations);
    let mut stock = PageStock::new(migration.collected_pages().single);
    migration.for_each_source(|visit| {
        let address = start + visit.index() * PAGE_SIZE;
        let span = visit.pages();
        match visit.source() {
            Source::Skipped => account.not_collected(visit.index()),
            Source::Hole | Source::HugeHole => account.skip(SkipReason::Hole, span),
            Source::Page(_) => match stock.take_for(&vma, address) {
                Ok(destination) => visit.give(destination),
                Err(_) => account.skip(SkipReason::NoSystemMemory, 1),
            },
            Source::HugePage(_) => match Destination::huge_system_for(&vma, address) {
                Ok(destination) => visit.give(destination),
                Err(_) => {
                    let page_for = |page| Destination::system_for(&vma, address + page * PAGE_SIZE);
                    let given = visit.give_each(|page| page_for(page).ok());
                    account.skip(SkipReason::NoSystemMemory, span - given);
                }
            },
        }
    });
    Ok(migration)
}
