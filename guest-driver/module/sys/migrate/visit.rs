// SPDX-License-Identifier: GPL-2.0-only

//! Decides the destination of every source.

use super::{
    entry::MIGRATE,
    source::Source,
    Collected,
    Migration, //
};
use crate::sys::device_memory::page::{
    Destination,
    HUGE_PAGES, //
};

impl<'a> Migration<'a, Collected> {
    /// Lets `decide` see every source in turn and give it a destination.
    pub(crate) fn for_each_source(&mut self, mut decide: impl FnMut(&mut Visit<'_, 'a>)) {
        let mut index = 0;
        while index < self.inner.pages {
            let pages = self.source(index).pages();
            let mut visit = Visit {
                migration: self,
                index,
                pages,
            };
            decide(&mut visit);
            index += visit.pages;
        }
    }
}

/// A source whose destination is being decided. Without one it stays where it is.
pub(crate) struct Visit<'m, 'a> {
    migration: &'m mut Migration<'a, Collected>,
    index: usize,
    pages: usize,
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

    /// Makes single holes of a huge hole, which are the next sources to be visited. Does nothing for any
    /// other source. Returns whether it was a huge hole.
    ///
    /// The kernel inserts a single page into such a hole as into any other, after it has split the huge
    /// page of zeros if there is one.
    pub(crate) fn split_hole(&mut self) -> bool {
        if !matches!(self.source(), Source::HugeHole) {
            return false;
        }
        let src = &mut self.migration.inner.lease.buffers.src;
        let Some(entries) = src.get_mut(self.index..self.index + HUGE_PAGES) else {
            return false;
        };
        entries.fill(MIGRATE);
        self.pages = 0;
        true
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
