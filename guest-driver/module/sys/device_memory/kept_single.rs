// SPDX-License-Identifier: GPL-2.0-only

//! Ranges of device pages in which no huge page may come to be.
//!
//! A migration of pages by number looks whether a page is huge before it locks the page. In between
//! the page must not be freed and given out as part of a huge page. Lock order: the lock here is a
//! leaf.

use core::ops::Range;
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// Ranges at once.
const MOST: usize = 8;

/// The ranges of one device memory.
#[pin_data]
pub(super) struct KeptSingle {
    #[pin]
    ranges: Mutex<[Range<usize>; MOST]>,
}

impl KeptSingle {
    /// No ranges.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            ranges <- new_mutex!([const { 0..0 }; MOST], "KeptSingle::ranges"),
        })
    }

    /// Keeps `pages` single while the result lives.
    ///
    /// # Errors
    ///
    /// `EBUSY`: there are too many ranges.
    pub(super) fn keep(&self, pages: Range<usize>) -> Result<KeepSingle<'_>> {
        let mut ranges = self.ranges.lock();
        let index = ranges.iter().position(Range::is_empty).ok_or(EBUSY)?;
        ranges[index] = pages;
        drop(ranges);
        Ok(KeepSingle { kept: self, index })
    }

    /// Makes a huge page of `pages` by `make`, during which none of them begins to be kept.
    ///
    /// # Errors
    ///
    /// `EBUSY`: one of them is kept single; what `make` reports.
    pub(super) fn make_huge<R>(
        &self,
        pages: Range<usize>,
        make: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let ranges = self.ranges.lock();
        let is_common = |kept: &Range<usize>| kept.start < pages.end && pages.start < kept.end;
        // The empty range is at 0, where a huge page can begin, and has nothing in common with it.
        if ranges.iter().any(is_common) {
            return Err(EBUSY);
        }
        make()
    }
}

/// Keeps pages single until it is dropped.
pub(in crate::sys) struct KeepSingle<'a> {
    kept: &'a KeptSingle,
    index: usize,
}

impl Drop for KeepSingle<'_> {
    fn drop(&mut self) {
        self.kept.ranges.lock()[self.index] = 0..0;
    }
}
