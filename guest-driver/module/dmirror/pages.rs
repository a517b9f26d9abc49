// SPDX-License-Identifier: GPL-2.0-only

//! Maps an open file: each page is one of its own in system memory, and zeroed.

use crate::sys::services::signal::signal_waits;
use kernel::{
    alloc::flags::__GFP_ZERO,
    mm::virt::VmaNew,
    page::{
        Page,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Fills a new mapping with pages, which are charged to the caller's memory cgroup.
///
/// # Errors
///
/// `ENOMEM`, `EINTR` a signal came. The kernel then removes the mapping with what it has.
pub(super) fn insert(vma: &VmaNew) -> Result {
    let vma = vma.set_mixedmap();
    for address in (vma.start()..vma.end()).step_by(PAGE_SIZE) {
        if signal_waits() {
            return Err(EINTR);
        }
        // The mapping takes a reference of its own.
        let page = Page::alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;
        vma.vm_insert_page(address, &page)?;
    }
    Ok(())
}
