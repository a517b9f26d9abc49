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
            clear_hold::ZapExclusion,
            exclusive::Exclusive,
            mm::Vma,
            mmap_lock::MmapReadGuard, //
        },
        migrate::Select, //
    }, //
};
use core::ops::Range;
use hmm_uapi::Trigger;
use kernel::mm::MmWithUser;

/// Most mappings that are asked for a page.
const MAPPINGS: u32 = 256;

/// If the page at `index` is a huge one, evicts what is mapped of it; returns how many pages
/// migrated.
pub(super) fn evict(device: &Device, trigger: Trigger, index: usize) -> usize {
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
        if let Some(mm) = mapping.mm {
            let moved = evict_range(device, trigger, &mm, mapping.range);
            if moved > 0 {
                return moved;
            }
        }
    }
    0
}

/// Evicts what `range` of `mm` has on the device, unless it is busy; returns how many pages
/// migrated.
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
    let known = device.spaces().find(mm);
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
