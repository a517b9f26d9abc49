// SPDX-License-Identifier: GPL-2.0-only

//! What the kernel and the driver tell each other of a page: an element of `src` or `dst`.

use crate::sys::{
    bindings,
    device_memory::page::HUGE_PAGES, //
};
use core::ptr::NonNull;
use kernel::prelude::*;

/// The entry has a page.
pub(super) const VALID: usize = bindings::MIGRATE_PFN_VALID as usize;
/// The page, or the hole, was collected.
pub(super) const MIGRATE: usize = bindings::MIGRATE_PFN_MIGRATE as usize;
/// The page is a huge one.
pub(super) const COMPOUND: usize = bindings::MIGRATE_PFN_COMPOUND as usize;
/// Where the number of the frame begins.
pub(super) const SHIFT: u32 = bindings::MIGRATE_PFN_SHIFT;

/// Pages that an entry stands for.
pub(super) fn pages_of(entry: usize) -> usize {
    if entry & COMPOUND != 0 {
        HUGE_PAGES
    } else {
        1
    }
}

/// The page of an entry, if it has one.
pub(super) fn page_of(entry: usize) -> Option<NonNull<bindings::page>> {
    if entry & VALID == 0 {
        return None;
    }
    // SAFETY: A valid entry holds a pfn with a struct page.
    NonNull::new(unsafe { bindings::vhmm_pfn_to_page(entry >> SHIFT) })
}

#[kunit_tests(virtio_hmm_migrate_entry)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stands_for_one_page_or_a_huge_one() {
        assert_eq!(pages_of(0), 1);
        assert_eq!(pages_of(VALID | MIGRATE), 1);
        assert_eq!(pages_of(MIGRATE | COMPOUND), HUGE_PAGES);
        assert_eq!(pages_of(VALID | MIGRATE | COMPOUND), HUGE_PAGES);
    }

    #[test]
    fn a_hole_has_no_page() {
        assert!(page_of(0).is_none());
        assert!(page_of(MIGRATE).is_none());
        assert!(page_of(MIGRATE | COMPOUND).is_none());
        assert!(page_of(VALID | MIGRATE | 1 << SHIFT).is_some());
    }
}
