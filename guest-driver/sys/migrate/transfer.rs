// SPDX-License-Identifier: GPL-2.0-only

//! What the device is to copy.

/// A place among the things to be copied.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cursor {
    pub(super) head: usize,
    pub(super) tail: usize,
}

/// One thing to be copied: a page, a huge page, or a page of a huge page that is being split.
#[derive(Clone, Copy)]
pub(crate) struct Transfer {
    pub(super) head: usize,
    pub(super) tail: usize,
    /// Pages to be copied.
    pub(crate) pages: usize,
    /// The frame of the first page that is read; `None`: zeros.
    pub(crate) source: Option<usize>,
    /// The frame of the first page that is written.
    pub(crate) destination: usize,
}

impl Transfer {
    /// The number of the (first) page within the migration.
    pub(crate) fn index(&self) -> usize {
        self.head + self.tail
    }
}
