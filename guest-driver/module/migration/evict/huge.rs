// SPDX-License-Identifier: GPL-2.0-only

//! Brings a huge page home through one of the mappings that map it.
//!
//! By its number alone it could only be collected as one, and then nothing keeps those who map it
//! from clearing their entries, which the kernel does wrong ([`Select::DeviceHuge`]). Through a
//! mapping it can be held, or split.

use super::super::{
    home,
    DeviceMemory, //
};
use crate::{
    link::Link,
    sys::{
        address_space::{
            anon_vma::AnonVma,
            clear_hold::Undisturbed,
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
    let Some(guard) = MmapReadGuard::try_lock(mm) else {
        return 0;
    };
    let Some(vma) = Vma::find(&guard, range.start) else {
        return 0;
    };
    if vma.start() > range.start || vma.end() < range.end {
        return 0;
    }
    // First, since who has some may be waiting for our hold to end.
    let lease = memory.ops().server().evict_buffers.lease();
    let known = memory.ops().server().spaces().find(mm);
    let held = known
        .as_ref()
        .and_then(|known| known.hold(Exclusive::of(&vma, range.clone())?, memory.owner()));
    let select = held
        .as_ref()
        .map(Undisturbed::Held)
        .map_or(Select::Device, Select::DeviceHuge);
    home::bring(memory, link, trigger, vma, range, select, lease).map_or(0, |home| home.moved)
}
