// SPDX-License-Identifier: GPL-2.0-only

//! What is common to all entries that `hmm_range_fault()` fills.
//!
//! Asked for a range that begins within a huge device page, the kernel tells the page numbers from the
//! start of that page on (see `docs/kernel-faults.md`). So entries are mended before anything is
//! read from them.
//!
//! C header: [`include/linux/hmm.h`](srctree/include/linux/hmm.h)

use crate::sys::{
    bindings,
    device_memory::page::{
        HUGE_ORDER,
        HUGE_PAGES, //
    }, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

pub(super) const ERROR: usize = bindings::hmm_pfn_flags_HMM_PFN_ERROR;
pub(super) const VALID: usize = bindings::hmm_pfn_flags_HMM_PFN_VALID;
pub(super) const PFN_MASK: usize = !bindings::hmm_pfn_flags_HMM_PFN_FLAGS;
const ORDER_SHIFT: u32 = bindings::hmm_pfn_flags_HMM_PFN_ORDER_SHIFT as u32;

/// log2 of the pages that an entry and its neighbours stand for, all with the same.
pub(super) fn order(entry: usize) -> usize {
    if entry & (ERROR | VALID) == VALID {
        (entry >> ORDER_SHIFT) & 0x1f
    } else {
        0
    }
}

/// Gives the entries of the pages from `start` on the page numbers that they should have. A huge page
/// is mapped at a multiple of its size, so the lower bits of its page numbers are those of the address.
pub(super) fn mend(start: usize, entries: &mut [usize]) {
    for (page, entry) in (start >> PAGE_SHIFT..).zip(entries) {
        if order(*entry) == HUGE_ORDER as usize {
            *entry = *entry & !(HUGE_PAGES - 1) | page & (HUGE_PAGES - 1);
        }
    }
}

#[kunit_tests(virtio_hmm_hmm_entries)]
mod tests {
    use super::*;

    const HUGE: usize = VALID | (HUGE_ORDER as usize) << ORDER_SHIFT;

    #[test]
    fn a_valid_entry_tells_how_large_its_page_is() {
        assert_eq!(order(VALID), 0);
        assert_eq!(order(HUGE), HUGE_ORDER as usize);
        assert_eq!(order(HUGE & !VALID), 0);
        assert_eq!(order(HUGE | ERROR), 0);
    }

    #[test]
    fn page_numbers_of_a_huge_page_follow_the_address() {
        let start = (5 * HUGE_PAGES + 100) << PAGE_SHIFT;
        let pfn = 7 * HUGE_PAGES;
        // As the kernel tells them, and as they are right.
        for wrong in [0, 100] {
            let mut entries = [HUGE | (pfn + wrong), HUGE | (pfn + wrong + 1), VALID | 3, 0];
            mend(start, &mut entries);
            assert!(entries == [HUGE | (pfn + 100), HUGE | (pfn + 101), VALID | 3, 0]);
        }
    }
}
