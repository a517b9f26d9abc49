// SPDX-License-Identifier: GPL-2.0-only

//! What the device is to copy.

use super::{
    entry::{
        pages_of,
        MIGRATE,
        SHIFT,
        VALID, //
    },
    Collected,
    Migration, //
};

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

impl Migration<'_, Collected> {
    /// The next thing to be copied, at or after the place of `cursor`, which moves on.
    pub(crate) fn next_transfer(&self, cursor: &mut Cursor) -> Option<Transfer> {
        let buffers = &self.inner.lease.buffers;
        while cursor.head < self.inner.pages {
            let Cursor { head, tail } = *cursor;
            let source = buffers.src.get(head).copied().unwrap_or(0);
            let destination = buffers.dst.get(head + tail).copied().unwrap_or(0);
            let span = if source & MIGRATE != 0 {
                pages_of(source)
            } else {
                1
            };
            let pages = pages_of(destination);
            cursor.tail += pages;
            if cursor.tail >= span {
                *cursor = Cursor {
                    head: head + span,
                    tail: 0,
                };
            }
            if destination & VALID != 0 && source & MIGRATE != 0 {
                return Some(Transfer {
                    head,
                    tail,
                    pages,
                    source: (source & VALID != 0).then_some((source >> SHIFT) + tail),
                    destination: destination >> SHIFT,
                });
            }
        }
        None
    }

    /// All that is to be copied.
    pub(crate) fn transfers(&self) -> impl Iterator<Item = Transfer> + '_ {
        let mut cursor = Cursor::default();
        core::iter::from_fn(move || self.next_transfer(&mut cursor))
    }
}
