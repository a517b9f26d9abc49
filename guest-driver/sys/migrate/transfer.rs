// SPDX-License-Identifier: GPL-2.0-only

//! What the device is to copy.

use super::super::page::PageRef;

/// A place among the things to be copied.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cursor {
    pub(super) head: usize,
    pub(super) tail: usize,
}

/// One thing to be copied: a page, a huge page, or a page of a huge page that is being split.
pub(crate) struct Transfer<'a> {
    pub(super) head: usize,
    pub(super) tail: usize,
    /// Pages to be copied.
    pub(crate) pages: usize,
    pub(super) source: Option<PageRef<'a>>,
    /// Where to.
    pub(crate) destination: PageRef<'a>,
}

impl<'a> Transfer<'a> {
    /// The number of the (first) page within the migration.
    pub(crate) fn index(&self) -> usize {
        self.head + self.tail
    }

    /// Where from: a page or huge page, and the page in it. `None`: zeros.
    pub(crate) fn source(&self) -> Option<(PageRef<'a>, usize)> {
        Some((self.source?, self.tail))
    }
}
