// SPDX-License-Identifier: GPL-2.0-only

//! What a migration is to collect, and what it collected.

use crate::sys::{
    address_space::zap_guard::ZapExclusion,
    device_memory::page::{
        PageRef,
        HUGE_PAGES, //
    }, //
};

/// Which pages a migration is to collect.
#[derive(Clone, Copy)]
pub(crate) enum Select<'a> {
    /// Pages in system memory, and holes of anonymous mappings. Huge pages are split for good.
    System,
    /// As `System`, but huge pages that lie wholly within the range are collected as one, if no other
    /// process maps them and the mapping wants huge pages.
    ///
    /// Where such a page is given single destinations, the kernel splits it, but of its mappings only
    /// the one that is migrated.
    SystemHuge(ZapExclusion<'a>),
    /// Pages of the given device memory; huge pages are split for good. (The kernel also reports
    /// holes.)
    Device,
    /// As `Device`, but huge pages that lie wholly within the range are collected as one, if the
    /// range is undisturbed and no other process maps the pages.
    ///
    /// A task that zaps an entry of such a page while it is migrated drops one reference too many:
    /// `zap_huge_pmd_folio()` asks whether the page is device-private, not whether the entry is.
    DeviceHuge(ZapExclusion<'a>),
}

/// One page or huge page as it was collected.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Not collected; the kernel does not say why.
    Skipped,
    /// Nothing is there, or the zero page.
    Hole,
    /// Nothing is there for the size of a huge page.
    HugeHole,
    /// A locked, unmapped page.
    Page(PageRef<'a>),
    /// A locked, unmapped huge page.
    HugePage(PageRef<'a>),
}

impl Source<'_> {
    /// How many pages the source stands for. The next source is so many pages on.
    pub(crate) fn pages(self) -> usize {
        match self {
            Source::Skipped | Source::Hole | Source::Page(_) => 1,
            Source::HugeHole | Source::HugePage(_) => HUGE_PAGES,
        }
    }
}
