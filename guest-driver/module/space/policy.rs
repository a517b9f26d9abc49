// SPDX-License-Identifier: GPL-2.0-only

//! Whether a device fault moves memory to the device before it is mapped.
//!
//! What a process wants on the device moves there at the device fault that it named, or at the first; everything else
//! stays where it is and is mapped there.

use super::{
    table::{
        Spare,
        GRANULE_BYTES, //
    },
    view::Followed, //
};
use crate::{
    device::Device,
    migration::{
        range::{
            migrate,
            Target, //
        },
        MigrateArgs,
        Tally, //
    },
    policy::WatchedSpace,
    pool::{
        AccountId,
        Ticket, //
    },
    sys::address_space::{
        mirror::Wanted,
        mm::Vma,
        mmap_lock::MmapReadGuard,
        process::Process, //
    }, //
};
use core::ops::Range;
use hmm_logic::Advice;
use hmm_uapi::{
    Direction,
    MigrateFlags,
    SkipReason,
    Trigger, //
};
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef, //
};

/// How often memory of another device is faulted in that changes all the time. Each pass goes over all of it.
const PASSES: usize = 8;

/// Moves to the device what a job is about to access, `wanted`, where that is advised, and what is around it with the
/// same advice. What does not move is mapped where it is. `wanted` is within one granule.
pub(super) fn migrate_first(
    followed: &Followed,
    device: &Device,
    mm: &MmWithUser,
    wanted: &Range<usize>,
) {
    let view = followed.mirrored();
    let watcher = view.known.watcher();
    if !watcher.has_advice() {
        return;
    }
    let (mut touches, mut has_moved) = (None, false);
    let mut start = wanted.start;
    while start < wanted.end {
        let (advice, end) = watcher.run(start..wanted.end);
        if let Some(needed) = advice.moves_at_touch() {
            // A fault is one touch, whatever is advised about its parts.
            let touches = match touches {
                Some(touches) => touches,
                None => {
                    let Ok(mut spare) = Spare::new() else {
                        return;
                    };
                    *touches.insert(view.table.lock().touch(start, &mut spare))
                }
            };
            if device.link().is_stopping() || device.engine().hibernation.is_near() {
                break;
            }
            if touches >= needed {
                let range = alike(&view.known, start, &advice);
                has_moved |= bring(followed, device, mm, range, start..end);
            }
        }
        start = end.max(start + PAGE_SIZE);
    }
    if has_moved {
        device.stats().contexts.device_faults_migrated.add(1);
    }
}

/// Moves `range` to the device, also from another device. Where nothing is yet, what is `touched` gets pages, and all of
/// the range if huge pages are welcome there. Returns whether anything moved; without memory for that, it stays where it is.
fn bring(
    followed: &Followed,
    device: &Device,
    mm: &MmWithUser,
    range: Range<usize>,
    touched: Range<usize>,
) -> bool {
    // One request: what comes first is not evicted for the rest.
    let ticket = device.pages().ticket();
    let mut has_moved = false;
    let mut bring = |range: &Range<usize>, flags| {
        let mut tally = Tally::default();
        to_device(
            followed,
            device,
            mm,
            range.clone(),
            flags,
            ticket,
            &mut tally,
        )
        .ok()?;
        has_moved |= tally.moved > 0;
        Some(tally)
    };
    let skipped = |tally: &Option<Tally>, reasons: &[SkipReason]| {
        let any = |tally: &Tally| reasons.iter().any(|&reason| tally.skipped_for(reason) > 0);
        tally.as_ref().is_some_and(any)
    };
    let flags = match wants_huge_pages(device, mm, &range, touched.start) {
        true => MigrateFlags::POPULATE,
        false => MigrateFlags::default(),
    };
    let mut brought = bring(&range, flags);
    // What could not be had stays where it is.
    if skipped(&brought, &[SkipReason::OtherDevice]) {
        let _ = fault_in(followed, device, mm, &range);
        brought = bring(&range, flags);
    }
    // Pages that the device has for itself, or that are in swap space, are no pages to the kernel until they are faulted in.
    if skipped(&brought, &[SkipReason::Busy, SkipReason::Swapped]) {
        let _ = fault_in(followed, device, mm, &touched);
        brought = bring(&range, flags);
    }
    if skipped(&brought, &[SkipReason::Hole]) {
        bring(&touched, MigrateFlags::POPULATE);
    }
    has_moved
}

/// Whether one mapping has all of `range`, in which `address` is, and huge pages are welcome there.
fn wants_huge_pages(
    device: &Device,
    mm: &MmWithUser,
    range: &Range<usize>,
    address: usize,
) -> bool {
    let guard = MmapReadGuard::lock(mm, || device.link().is_stopping());
    guard.is_ok_and(|guard| {
        Vma::find(&guard, address).is_some_and(|vma| {
            vma.start() <= range.start && range.end <= vma.end() && vma.wants_huge_pages()
        })
    })
}

/// What may be mapped along with `page`: the part of its granule with the same advice. Other parts have touches of their
/// own.
pub(super) fn mapped_along(
    followed: &Followed,
    page: usize,
    granule: &Range<usize>,
) -> Range<usize> {
    let known = &followed.mirrored().known;
    if !known.watcher().has_advice() {
        return granule.clone();
    }
    alike(known, page, &known.watcher().advice(page))
}

/// Faults `range` in as a CPU would, so that what another device has of it is in system memory. A device cannot copy
/// from the memory of another.
fn fault_in(followed: &Followed, device: &Device, mm: &MmWithUser, range: &Range<usize>) -> Result {
    let gives_up = || device.link().is_stopping();
    let part = KBox::pin_init(followed.part(mm, range.clone()), GFP_KERNEL)?;
    let mut entries = KVVec::from_elem(0usize, range.len() / PAGE_SIZE, GFP_KERNEL)?;
    for _ in 0..PASSES {
        entries.fill(Wanted::Read.entry());
        let sequence = part.begin();
        let guard = MmapReadGuard::lock(mm, gives_up)?;
        match part.fault(&guard, range.clone(), sequence, &mut entries) {
            // Each page that the other device gives is a change.
            Err(error) if error == EBUSY && !gives_up() => {}
            result => return result,
        }
    }
    Err(EBUSY)
}

/// Migrates the page at `page` back to system memory, if it can move.
pub(super) fn migrate_back(
    followed: &Followed,
    device: &Device,
    mm: &MmWithUser,
    page: usize,
) -> Result {
    let view = followed.mirrored();
    let process = Process::with_memory(view.task.clone(), ARef::from(mm));
    let args = MigrateArgs {
        direction: Direction::ToSystem,
        flags: MigrateFlags::default(),
        huge: false,
        refuse_huge: false,
        ticket: device.pages().ticket(),
        trigger: Trigger::DeviceFault,
        account: AccountId::NONE,
    };
    let target = Target {
        process: &process,
        known: Some(view.known.clone()),
        is_stopped: &|| device.link().is_stopping(),
    };
    let end = page + PAGE_SIZE;
    migrate(device, target, page..end, end, args, &mut Tally::default()).map(drop)
}

/// Moves `range` to the device.
fn to_device(
    followed: &Followed,
    device: &Device,
    mm: &MmWithUser,
    range: Range<usize>,
    flags: MigrateFlags,
    ticket: Ticket,
    tally: &mut Tally,
) -> Result {
    let view = followed.mirrored();
    let process = Process::with_memory(view.task.clone(), ARef::from(mm));
    if process.has_left() {
        return Err(ESRCH);
    }
    let args = MigrateArgs {
        direction: Direction::ToDevice,
        flags,
        huge: *crate::module_parameters::huge_pages.value_ref() != 0,
        refuse_huge: false,
        ticket,
        trigger: Trigger::DeviceFault,
        account: view.entry.account()?,
    };
    let target = Target {
        process: &process,
        known: Some(view.known.clone()),
        is_stopped: &|| device.link().is_stopping(),
    };
    let end = range.end;
    migrate(device, target, range, end, args, tally).map(drop)
}

/// The part of the granule around `page` with this advice.
fn alike(known: &WatchedSpace, page: usize, advice: &Advice) -> Range<usize> {
    let granule = page & !(GRANULE_BYTES - 1);
    let (_, end) = known
        .watcher()
        .run(page..granule.saturating_add(GRANULE_BYTES));
    let end = end.max(page + PAGE_SIZE);
    let mut start = granule;
    while start < page {
        let (before, run_end) = known.watcher().run(start..page);
        if run_end >= page && before == *advice {
            break;
        }
        start = run_end.max(start + PAGE_SIZE);
    }
    start..end
}
