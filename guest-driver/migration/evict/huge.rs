// SPDX-License-Identifier: GPL-2.0-only

//! Brings a huge page home through one of the mappings that map it.
//!
//! By its number alone it could only be collected as one, and then nothing keeps those who map it
//! from clearing their entries, which the kernel does wrong ([`Select::DeviceHuge`]). Through a
//! mapping it can be held, or split.

use super::super::{
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
        anon_vma::AnonVma,
        clear_hold::Undisturbed,
        migrate::{
            Migration,
            Select,
            Source, //
        },
        mm::Vma,
        page::Destination,
        page_stock::PageStock, //
    }, //
};
use core::ops::Range;
use hmm_protocol::Op;
use hmm_uapi::Trigger;
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE, //
};

/// Most mappings that are asked for a page.
const MAPPINGS: u32 = 256;

/// If the page at `index` is a huge one, brings home what is mapped of it; returns how many pages
/// came.
pub(super) fn evict(memory: &DeviceMemory, link: &Link, trigger: Trigger, index: usize) -> usize {
    let page = memory.page_in_use(index).filter(|page| page.is_large());
    let Some((page, anon_vma)) = page.and_then(|page| Some((page, AnonVma::of(page)?))) else {
        return 0;
    };
    for number in 0..MAPPINGS {
        let Some(mapping) = anon_vma.mapping(page, number) else {
            break;
        };
        if let Some(mm) = mapping.mm {
            let moved = bring_home(memory, link, trigger, &mm, mapping.range);
            if moved > 0 {
                return moved;
            }
        }
    }
    0
}

/// Brings home what `range` of `mm` has on the device, unless it is busy; returns how many pages
/// came.
fn bring_home(
    memory: &DeviceMemory,
    link: &Link,
    trigger: Trigger,
    mm: &MmWithUser,
    range: Range<usize>,
) -> usize {
    // Nobody is waited for: who has the lock may be waiting for room.
    let Some(guard) = mm.mmap_read_trylock() else {
        return 0;
    };
    let Some(vma) = Vma::find(mm, &guard, range.start) else {
        return 0;
    };
    if vma.start() > range.start || vma.end() < range.end {
        return 0;
    }
    let known = memory.ops().server().spaces().find(mm);
    let held = known
        .as_ref()
        .and_then(|known| known.hold(range.clone(), memory.owner()));
    let select = held
        .as_ref()
        .map(Undisturbed::Held)
        .map_or(Select::Device, Select::DeviceHuge);
    let lease = memory.ops().server().evict_buffers.lease();
    let start = range.start;

    let time = link.stats().measure(Stage::Setup, trigger);
    let Ok(mut migration) = Migration::of_range(vma, range, select, memory, lease) else {
        return 0;
    };
    drop(time);
    let time = link.stats().measure(Stage::Destinations, trigger);
    let mut stock = PageStock::new(migration.collected_pages().single);
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
    install(link.stats(), trigger, migration)
}
