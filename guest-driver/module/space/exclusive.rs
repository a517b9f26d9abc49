// SPDX-License-Identifier: GPL-2.0-only

//! Pages that the device has for itself until a CPU touches them, for atomic accesses to system memory.

use super::{
    access::result_of,
    table::{
        Pages,
        Spare, //
    },
    view::Followed, //
};
use crate::{
    device::Device,
    sys::address_space::mmap_lock::MmapReadGuard, //
};
use hmm_logic::PageAccess;
use kernel::{
    mm::MmWithUser,
    prelude::*, //
};

/// How often a page is tried.
const TRIES: usize = 64;

/// A page fault that a page is made exclusive for.
#[derive(Clone, Copy)]
pub(super) struct OfFault {
    /// By which it is answered.
    pub(super) number: u64,
    /// [`super::table::Table::advised`] when advice was looked at.
    pub(super) advised: u64,
}

/// Gives the device the page at `address` for itself, and lets the job of `fault` try again. Returns how many pages were
/// mapped.
///
/// # Errors
///
/// `EBUSY` the advice has changed since, `EAGAIN` the page changes all the time, `EOPNOTSUPP` the memory is not private,
/// `EFAULT` it is not mapped, `EPERM` it must not be written, `ENOMEM`, `EINTR`, `EIO`.
pub(super) fn make_exclusive(
    followed: &Followed,
    device: &Device,
    mm: &MmWithUser,
    address: usize,
    fault: Option<OfFault>,
) -> Result<usize> {
    let view = followed.mirrored();
    let _one = view.exclusive.lock();
    for _ in 0..TRIES {
        let mut spare = Spare::new()?;
        // Nothing else is under way that could take the page away unnoticed.
        followed.begin();
        let guard = MmapReadGuard::lock(mm, || device.link().is_stopping())?;
        let result = followed.make_exclusive(&guard, address, |page| {
            let mut table = view.table.lock();
            if fault.is_some_and(|fault| fault.advised != table.advised()) {
                return Err(EBUSY);
            }
            if !table.end_exclusive(address) {
                return Err(EAGAIN);
            }
            let pages = Pages {
                start: address,
                seen: &mut core::iter::once(Some((page, PageAccess::Atomic))),
            };
            let (link, memory) = (device.link(), device.memory());
            let answer = fault.map(|fault| fault.number);
            let (count, mapped) = table.map(link, view.context, memory, pages, answer, &mut spare);
            drop(table);
            result_of(mapped).map(|()| count)
        });
        match result {
            Err(error) if error == EAGAIN => {}
            result => return result,
        }
    }
    Err(EAGAIN)
}
