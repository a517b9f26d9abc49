// SPDX-License-Identifier: GPL-2.0-only

//! What the device may do with a page, and what a call returns for what the device did.

use crate::{
    device::Device,
    link::Mapped,
    sys::address_space::mirror::SeenPage, //
};
use hmm_logic::PageAccess;
use hmm_protocol::Status;
use kernel::prelude::*;

/// What the device may do with a page: what the process may, and atomic accesses only in its own memory.
pub(super) fn access_to(device: &Device, page: SeenPage) -> PageAccess {
    match (page.is_writable(), device.memory().index_of_pfn(page.pfn())) {
        (true, Some(_)) => PageAccess::Atomic,
        (true, None) => PageAccess::Write,
        (false, _) => PageAccess::Read,
    }
}

/// What a call returns for what became of its batches.
pub(super) fn result_of(mapped: Mapped) -> Result {
    match mapped {
        Mapped::All => Ok(()),
        Mapped::Failed(_, Status::Busy | Status::NoMemory)
        | Mapped::Refused(Status::Busy | Status::NoMemory) => Err(ENOMEM),
        Mapped::Failed(..) | Mapped::Refused(_) | Mapped::Reset => Err(EIO),
    }
}
