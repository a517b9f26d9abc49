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
    pool::AccountId,
    sys::address_space::{
        mirror::Wanted,
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

/// Moves what is around `page` to the device if that is wanted. What does not move is mapped where it is.
pub(super) fn migrate_first(followed: &Followed, device: &Device, mm: &MmWithUser, page: usize) {
    let view = followed.mirrored();
    if !view.known.watcher().has_advice() {
        return;
    }
    let advice = view.known.watcher().advice(page);
    let Some(needed) = advice.moves_at_touch() else {
        return;
    };
    let Ok(mut spare) = Spare::new() else {
        return;
    };
    let touches = view.table.lock().touch(page, &mut spare);
    if touches < needed || device.link().is_stopping() || device.engine().hibernation.is_near() {
        return;
    }
    // Without memory for that, it stays where it is.
    let range = alike(&view.known, page, &advice);
    let mut tally = Tally::default();
    let mut moved = to_device(followed, device, mm, range.clone(), &mut tally);
    if moved.is_ok() && tally.skipped_for(SkipReason::OtherDevice) > 0 {
        // What could not be had stays where it is.
        let _ = fault_in(followed, device, mm, &range);
        moved = to_device(followed, device, mm, range, &mut tally);
    }
    if moved.is_ok() && tally.moved > 0 {
        device.stats().contexts.device_faults_migrated.add(1);
    }
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
    tally: &mut Tally,
) -> Result {
    let view = followed.mirrored();
    let process = Process::with_memory(view.task.clone(), ARef::from(mm));
    if process.has_left() {
        return Err(ESRCH);
    }
    let args = MigrateArgs {
        direction: Direction::ToDevice,
        flags: MigrateFlags::POPULATE,
        huge: *crate::module_parameters::huge_pages.value_ref() != 0,
        refuse_huge: false,
        ticket: device.pages().ticket(),
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
    if granule == page {
        return page..end;
    }
    let (before, run_end) = known.watcher().run(granule..page);
    let start = if before == *advice && run_end >= page {
        granule
    } else {
        page
    };
    start..end
}
