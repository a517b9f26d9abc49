// SPDX-License-Identifier: GPL-2.0-only

//! Evicts a huge page through one of the VMAs that map it.
//!
//! By its pfn alone it could only be collected as one, and then nothing keeps tasks that map it from
//! zapping their entries, which the kernel does wrong ([`Select::DeviceHuge`]). Through a VMA it can
//! be held, or split.

use crate::{
    device::Device,
    migration::to_system,
    sys::{
        address_space::{
            anon_vma::AnonVma,
            exclusive::Exclusive,
            mm::Vma,
            mmap_lock::MmapReadGuard, //
            zap_guard::ZapExclusion,
        },
        device_memory::page::HUGE_PAGES,
        migrate::Select, //
    }, //
};
use core::ops::Range;
use hmm_logic::KeptPages;
use hmm_uapi::Trigger;
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE, //
};

/// Most mappings that are asked for a page.
const MAPPINGS: u32 = 256;

/// If the page at `index` is a huge one, evicts what is mapped of it; returns how many pages
/// migrated. If pages of it are `kept` and others are not, it is split, and some of the others are
/// evicted.
pub(super) fn evict(device: &Device, trigger: Trigger, index: usize, kept: &KeptPages) -> usize {
    let part = kept.first_others();
    if part.is_empty() {
        return 0;
    }
    let page = device
        .memory()
        .page_in_use(index)
        .filter(|page| page.is_large());
    let Some((page, anon_vma)) = page.and_then(|page| Some((page, AnonVma::of(page)?))) else {
        return 0;
    };
    for number in 0..MAPPINGS {
        let Some(mapping) = anon_vma.mapping(page, number) else {
            break;
        };
        let Some(range) = part_of(&mapping.range, &part) else {
            continue;
        };
        if let Some(mm) = mapping.mm {
            let moved = evict_range(device, trigger, &mm, range);
            if moved > 0 {
                return moved;
            }
        }
    }
    0
}

/// Where a mapping at `range` has these pages of a huge page. `None` if it has only a part of the huge
/// page and only a part is wanted: it is not known then which pages it has.
fn part_of(range: &Range<usize>, pages: &Range<usize>) -> Option<Range<usize>> {
    if pages.len() == HUGE_PAGES {
        return Some(range.clone());
    }
    (range.len() == HUGE_PAGES * PAGE_SIZE)
        .then(|| range.start + pages.start * PAGE_SIZE..range.start + pages.end * PAGE_SIZE)
}

/// Evicts what `range` of `mm` has on the device, unless it is busy; returns how many pages
/// migrated. A huge page of which `range` has a part only is split.
fn evict_range(device: &Device, trigger: Trigger, mm: &MmWithUser, range: Range<usize>) -> usize {
    // Do not wait: the task that has the lock may be waiting for room.
    let Some(guard) = MmapReadGuard::try_lock(mm) else {
        return 0;
    };
    let Some(vma) = Vma::find(&guard, range.start) else {
        return 0;
    };
    if vma.start() > range.start || vma.end() < range.end {
        return 0;
    }
    // First, since a thread that has buffers may be waiting for the hold below to end.
    let lease = device.engine().evict_buffers.lease();
    let known = device
        .spaces()
        .find(mm)
        .filter(|_| range.len() == HUGE_PAGES * PAGE_SIZE);
    let held = known
        .as_ref()
        .and_then(|known| known.hold(Exclusive::of(&vma, range.clone())?, device.memory().owner()));
    let select = held
        .as_ref()
        .map(ZapExclusion::Held)
        .map_or(Select::Device, Select::DeviceHuge);
    to_system::migrate(device, trigger, vma, range, select, lease)
        .map_or(0, |migrated| migrated.moved)
}
