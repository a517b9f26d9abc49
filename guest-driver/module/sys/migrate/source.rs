// SPDX-License-Identifier: GPL-2.0-only

//! What a migration is to collect, what it collected, and who decides where that goes.

use super::{
    Collected,
    Migration, //
};
use crate::sys::{
    address_space::clear_hold::Undisturbed,
    device_memory::page::{
        Destination,
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
    SystemHuge(Undisturbed<'a>),
    /// Pages of the given device memory; huge pages are split for good. (The kernel also reports
    /// holes.)
    Device,
    /// As `Device`, but huge pages that lie wholly within the range are collected as one, if the
    /// range is undisturbed and no other process maps the pages.
    ///
    /// Who clears an entry of such a page while it is migrated drops one reference too many:
    /// `zap_huge_pmd_folio()` asks whether the page is device-private, not whether the entry is.
    DeviceHuge(Undisturbed<'a>),
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

/// A source whose destination is being decided. Without one it stays where it is.
pub(crate) struct Visit<'m, 'a> {
    pub(super) migration: &'m mut Migration<'a, Collected>,
    pub(super) index: usize,
    pub(super) pages: usize,
}

impl Visit<'_, '_> {
    /// The number of the source's first page within the migration.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// How many pages the source stands for.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// What was collected.
    pub(crate) fn source(&self) -> Source<'_> {
        self.migration.source(self.index)
    }

    /// Gives the source a destination. One that does not fit (a huge one for a single page, or any
    /// for what was not collected) is dropped.
    ///
    /// A huge page with a destination of a single page is split for good; see [`Visit::give_each`].
    pub(crate) fn give(&mut self, destination: Destination) {
        let fits = match self.source() {
            Source::Skipped => false,
            Source::Hole | Source::Page(_) => !destination.is_huge(),
            Source::HugeHole => destination.is_huge(),
            Source::HugePage(_) => true,
        };
        if fits {
            self.migration.put_destination(self.index, destination);
        }
    }

    /// Gives the pages of a huge page a destination each, until `next`, which is told the number
    /// of the page within the huge page, has no more. The huge page is split for good, unless its
    /// first page gets none. Returns how many pages got one.
    pub(crate) fn give_each(
        &mut self,
        mut next: impl FnMut(usize) -> Option<Destination>,
    ) -> usize {
        if !matches!(self.source(), Source::HugePage(_)) {
            return 0;
        }
        for page in 0..HUGE_PAGES {
            match next(page).filter(|destination| !destination.is_huge()) {
                Some(destination) => {
                    self.migration
                        .put_destination(self.index + page, destination);
                }
                None => return page,
            }
        }
        HUGE_PAGES
    }
}
