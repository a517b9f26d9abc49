// SPDX-License-Identifier: GPL-2.0-only

//! The RESIDENCY ioctl.

use super::{
    argument::Argument,
    call::page_range, //
};
use crate::{
    device::DeviceMemory,
    engine::BATCH_PAGES,
    sys::{
        address_space::{
            mm::Vma,
            mmap_lock::MmapReadGuard,
            process::{
                ProcMount, //
                Process,
            },
            snapshot::{
                Place,
                Snapshot, //
            }, //
        },
        services::signal::signal_waits, //
    }, //
};
use core::ops::Range;
use hmm_uapi::{
    PageState,
    Residency,
    RESIDENCY_PAGES_MAX, //
};
use kernel::{
    mm::MmWithUser,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

pub(super) fn residency(
    memory: &DeviceMemory,
    proc: &ProcMount,
    mut argument: Argument<Residency>,
) -> Result {
    let call = argument.get_mut();
    if call.flags != 0 {
        return Err(EINVAL);
    }
    let range = page_range(call.start, call.end)?;
    let pages = range.len() >> PAGE_SHIFT;
    if pages as u64 > RESIDENCY_PAGES_MAX {
        return Err(E2BIG);
    }
    let process = Process::find(proc, call.pid)?;
    let mm = process.mm();
    // User memory must not be touched under the mmap lock, so the map is written at the end.
    let mut map = KVVec::from_elem(PageState::None as u8, pages, GFP_KERNEL)?;
    let mut scratch = KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?;
    let snapshot = KBox::pin_init(Snapshot::new(mm), GFP_KERNEL)?;

    let mut address = range.start;
    while address < range.end {
        if signal_waits() {
            return Err(ERESTARTSYS);
        }
        address = look(
            memory,
            mm,
            &snapshot,
            address..range.end,
            &mut map,
            &mut scratch,
        )?;
    }

    let count = |state: PageState| map.iter().filter(|&&byte| byte == state as u8).count() as u64;
    call.system_pages = count(PageState::System);
    call.device_pages = count(PageState::Device);
    call.other_pages = count(PageState::None);
    if call.map != 0 {
        UserSlice::new(UserPtr::from_addr(usize::try_from(call.map)?), pages)
            .writer()
            .write_slice(&map)?;
    }
    argument.write()
}

/// Looks at the front of `rest`, whose last page is the last of `map`. Returns where it ends.
fn look(
    memory: &DeviceMemory,
    mm: &MmWithUser,
    snapshot: &Snapshot,
    rest: Range<usize>,
    map: &mut [u8],
    scratch: &mut [usize],
) -> Result<usize> {
    let guard = MmapReadGuard::lock(mm, || false)?;
    let vma = match Vma::find(&guard, rest.start) {
        Some(vma) if vma.start() < rest.end => vma,
        _ => return Ok(rest.end),
    };
    if rest.start < vma.start() {
        return Ok(vma.start());
    }
    let used = vma.next_populated(rest.start..rest.end.min(vma.end()));
    if used > rest.start {
        return Ok(used);
    }
    let end = rest
        .end
        .min(vma.end())
        .min(rest.start.saturating_add(BATCH_PAGES * PAGE_SIZE));
    let first = map.len() - (rest.len() >> PAGE_SHIFT);
    snapshot.look(
        &guard,
        rest.start..end,
        memory.owner(),
        scratch,
        |page, place| {
            let state = match place {
                Place::System | Place::Merged | Place::SystemReferenced => PageState::System,
                Place::Device(_) => PageState::Device,
                Place::Nowhere | Place::Special => PageState::None,
            };
            if let Some(byte) = map.get_mut(first + page) {
                *byte = state as u8;
            }
        },
    )?;
    Ok(end)
}
