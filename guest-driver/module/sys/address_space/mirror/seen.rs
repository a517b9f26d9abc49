// SPDX-License-Identifier: GPL-2.0-only

//! What is asked of `hmm_range_fault()` about a page, and what it says.

use crate::sys::{
    bindings,
    device_memory::page::HUGE_PAGES, //
};

const ERROR: usize = bindings::hmm_pfn_flags_HMM_PFN_ERROR;
const VALID: usize = bindings::hmm_pfn_flags_HMM_PFN_VALID;
const WRITE: usize = bindings::hmm_pfn_flags_HMM_PFN_WRITE;
const FAULT: usize = bindings::hmm_pfn_flags_HMM_PFN_REQ_FAULT;
const FAULT_WRITE: usize = bindings::hmm_pfn_flags_HMM_PFN_REQ_WRITE;
const ORDER_SHIFT: u32 = bindings::hmm_pfn_flags_HMM_PFN_ORDER_SHIFT as u32;
const PFN_MASK: usize = !bindings::hmm_pfn_flags_HMM_PFN_FLAGS;

/// What an entry may ask for.
pub(super) const REQUESTS: usize = FAULT | FAULT_WRITE;

/// What is wanted of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That it can be read.
    Read,
    /// That it can be written.
    Write,
}

impl Wanted {
    /// The entry that says so. One that is 0 asks for nothing.
    pub(crate) fn entry(self) -> usize {
        match self {
            Self::Read => FAULT,
            Self::Write => FAULT | FAULT_WRITE,
        }
    }
}

/// A page that was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeenPage {
    pfn: usize,
    is_writable: bool,
    is_huge: bool,
}

impl SeenPage {
    /// A page that the device has for itself.
    pub(super) fn exclusive(pfn: usize) -> Self {
        Self {
            pfn,
            is_writable: true,
            is_huge: false,
        }
    }

    /// Its number.
    pub(crate) fn pfn(self) -> usize {
        self.pfn
    }

    /// Whether it may be written.
    pub(crate) fn is_writable(self) -> bool {
        self.is_writable
    }

    /// Notes that the device may write to it from now on. The kernel drops pages that are not dirty without
    /// asking what is in them: those that were freed by advice, and those that are in swap space as well. The copy of
    /// a page is dirty, too. The caller holds the update lock, and [`super::Mirror::has_changed`] said no; or the
    /// page is locked.
    pub(crate) fn mark_dirty(self) {
        // SAFETY: `hmm_range_fault()` tells the numbers of pages that have a `struct page` only, and so does
        // [`super::Mirror::make_exclusive`]. By the contract of this function the page table refers to the page still, since
        // nothing goes from there while the update lock is held.
        unsafe { bindings::set_page_dirty(bindings::vhmm_pfn_to_page(self.pfn)) };
    }

    /// Whether it is part of the same huge page as the page before.
    pub(crate) fn continues(self, before: Self) -> bool {
        self.is_huge && before.is_huge && self.pfn / HUGE_PAGES == before.pfn / HUGE_PAGES
    }

    /// Whether it is mapped as a part of a huge page.
    pub(crate) fn is_huge(self) -> bool {
        self.is_huge
    }
}

/// What was seen at an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// No page.
    Nothing,
    /// One that no device may access.
    Special,
    /// A page.
    Page(SeenPage),
}

impl Seen {
    /// What an entry says.
    pub(crate) fn of(entry: usize) -> Self {
        if entry & ERROR != 0 {
            Self::Special
        } else if entry & VALID == 0 {
            Self::Nothing
        } else {
            Self::Page(SeenPage {
                pfn: entry & PFN_MASK,
                is_writable: entry & WRITE != 0,
                // A huge page of x86 has order 9, and so has what hugetlb maps at least.
                is_huge: (entry >> ORDER_SHIFT) & 0x1f >= 9,
            })
        }
    }
}
