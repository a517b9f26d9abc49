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
    sys::address_space::process::Process, //
};
use core::ops::Range;
use hmm_logic::Advice;
use hmm_uapi::{
    Direction,
    MigrateFlags,
    Trigger, //
};
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef, //
};

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
    if let Ok(moved) = migrate_around(followed, device, mm, page, &advice) {
        if moved > 0 {
            device.stats().contexts.device_faults_migrated.add(1);
        }
    }
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

/// Moves the part of the granule that has the same advice as `page`. Returns how many pages moved.
fn migrate_around(
    followed: &Followed,
    device: &Device,
    mm: &MmWithUser,
    page: usize,
    advice: &Advice,
) -> Result<u64> {
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
    let range = alike(&view.known, page, advice);
    let end = range.end;
    let mut tally = Tally::default();
    migrate(device, target, range, end, args, &mut tally)?;
    Ok(tally.moved)
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
