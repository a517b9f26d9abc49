// SPDX-License-Identifier: GPL-2.0-only

//! Begins to be notified of what happens to an address space.
//!
//! C header: [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h)

use crate::sys::{
    address_space::mmap_lock::MmapWriteGuard,
    bindings, //
};
use core::ops::Range;
use kernel::{
    error::to_result,
    mm::MmWithUser,
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Inserts a notifier of all addresses of `mm`. The first one takes the mmap lock for writing, so the
/// caller must not hold it.
///
/// # Errors
///
/// `ENOMEM`, or `ERESTARTSYS` if a signal came: the first notifier of an address space takes the
/// locks of all its mappings, which the kernel does only while no signal waits. Nothing has
/// happened then, and a system call that has begun nothing either can be begun again.
///
/// # Safety
///
/// After success `slot` must stay where it is until `mmu_interval_notifier_remove()` has been
/// called, and so must what the functions in `ops` use.
pub(in crate::sys) unsafe fn insert(
    slot: *mut bindings::mmu_interval_notifier,
    mm: &MmWithUser,
    ops: &'static bindings::mmu_interval_notifier_ops,
) -> Result {
    // SAFETY: As the caller promises.
    unsafe { insert_range(slot, mm, 0..usize::MAX & !((1 << PAGE_SHIFT) - 1), ops) }
}

/// As [`insert`], for some addresses.
///
/// # Errors
///
/// As there; `EINVAL`: there is no address in the range.
///
/// # Safety
///
/// As there.
pub(in crate::sys) unsafe fn insert_range(
    slot: *mut bindings::mmu_interval_notifier,
    mm: &MmWithUser,
    range: Range<usize>,
    ops: &'static bindings::mmu_interval_notifier_ops,
) -> Result {
    let (start, bytes) = (range.start, range.end.saturating_sub(range.start));
    if bytes == 0 {
        return Err(EINVAL);
    }
    // SAFETY: The address space has users.
    let result = if unsafe { bindings::vhmm_mm_has_notifiers(mm.as_raw()) } {
        // SAFETY: The address space has users. The rest is what the caller promises. No lock is taken.
        unsafe { bindings::mmu_interval_notifier_insert(slot, mm.as_raw(), start, bytes, ops) }
    } else {
        let _guard = MmapWriteGuard::lock(mm, || false).map_err(|_| ERESTARTSYS)?;
        // SAFETY: As above; the lock is held.
        unsafe {
            bindings::mmu_interval_notifier_insert_locked(slot, mm.as_raw(), start, bytes, ops)
        }
    };
    to_result(result).map_err(|error| if error == EINTR { ERESTARTSYS } else { error })
}
