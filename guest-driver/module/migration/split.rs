// SPDX-License-Identifier: GPL-2.0-only

//! A CPU touched a huge device page that must not be migrated as one: other processes map it, too, or
//! nothing is known of the process. Under a fault on the whole page the kernel does not split it,
//! since the fault refers to it. So a worker splits it, while the fault is retried.

use super::{
    to_system,
    worker, //
};
use crate::{
    device::Device,
    engine::Splits,
    sys::{
        address_space::{
            mm::Vma,
            mmap_lock::MmapReadGuard, //
        },
        device_memory::page::HUGE_PAGES,
        migrate::Select, //
    }, //
};
use core::ops::Range;
use hmm_uapi::Trigger;
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// How often a busy page is tried. The CPU asks again if it is still huge then.
const TRIES: usize = 100;
/// How long to wait before a busy page is tried again.
const PAUSE: Delta = Delta::from_micros(20);
/// Bytes of a huge page.
const HUGE_BYTES: usize = HUGE_PAGES * PAGE_SIZE;

/// Lets a worker split the huge page at `address` of `mm` and migrate it back, unless one does so
/// already. A device that is going evicts all pages itself.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn spawn(device: &Device, mm: &MmWithUser, address: usize) -> Result {
    if device.link().is_stopping() {
        return Ok(());
    }
    match Splits::begin(&device.engine().splits, mm, address) {
        Some(split) => worker::spawn(device, mm, split, move |device, mm| {
            split_and_migrate(device, mm, address);
        }),
        None => Ok(()),
    }
}

/// Splits the huge page at `address` and migrates back what is there of it. If that fails, the fault
/// is retried and asks again.
fn split_and_migrate(device: &Device, mm: &MmWithUser, address: usize) {
    kernel::task::might_sleep();
    let start = address & !(HUGE_BYTES - 1);
    for _ in 0..TRIES {
        if device.link().is_stopping() || attempt(device, mm, start..start + HUGE_BYTES) {
            return;
        }
        fsleep(PAUSE);
    }
}

/// Returns whether there is nothing left to be done.
fn attempt(device: &Device, mm: &MmWithUser, range: Range<usize>) -> bool {
    let Ok(guard) = MmapReadGuard::lock(mm, || device.link().is_stopping()) else {
        return true;
    };
    let Some(vma) = Vma::find(&guard, range.start) else {
        return true;
    };
    // It has been split, migrated back or unmapped meanwhile.
    if !device.memory().is_huge_in(&vma, &range) {
        return true;
    }
    let lease = device.engine().bulk_buffers.lease();
    let select = Select::Device;
    let Ok(migrated) = to_system::migrate(device, Trigger::Prefetch, vma, range, select, lease)
    else {
        return true;
    };
    let bytes = (migrated.moved * PAGE_SIZE) as u64;
    device.stats().bytes_to_system.add(bytes);
    // A page without a destination stays, and the next fault asks for it.
    migrated.collected > 0
}
