// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! One block of device memory: 2 MiB of 4 KiB pages.

use core::ops::Range;

/// Pages of a block.
pub const BLOCK_PAGES: usize = 512;
const WORDS: usize = BLOCK_PAGES / 64;
/// No block.
pub(crate) const NONE: u32 = u32::MAX;

/// Pages of a block that eviction spares.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeptPages([u64; WORDS]);

impl KeptPages {
    /// Whether the page with this number within the block is one of them.
    pub fn contains(&self, page: usize) -> bool {
        has_bit(&self.0, page)
    }

    /// The first pages in a row that are none of them, by their numbers within the block. Empty if
    /// there are none.
    pub fn first_others(&self) -> Range<usize> {
        let mut pages = (0..BLOCK_PAGES).skip_while(|&page| self.contains(page));
        let start = pages.next().unwrap_or(BLOCK_PAGES);
        start
            ..pages
                .find(|&page| self.contains(page))
                .unwrap_or(BLOCK_PAGES)
    }
}

/// The queue that a block is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// On none: no page is in use but those that are kept, or the block is held.
    None,
    /// In order of use, least recently wanted first.
    Recent,
    /// An eviction left pages in these; oldest attempt first.
    Deferred,
}

/// The state of a block.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// One bit for each page, set while the page is free.
    free: [u64; WORDS],
    /// One bit for each page, set while the page is in use and not to be evicted.
    kept: [u64; WORDS],
    /// How many of `free` are set.
    pub(crate) free_pages: u16,
    pub(crate) next: u32,
    pub(crate) previous: u32,
    /// The queue of blocks that may be evicted, and the neighbours there.
    pub(crate) queue: Queue,
    pub(crate) older: u32,
    pub(crate) newer: u32,
    /// When pages of the block were last wanted on the device; see `BlockAllocator::victim`.
    pub(crate) stamp: u64,
    /// The block is being emptied: none of its pages are given out.
    pub(crate) held: bool,
}

impl Block {
    /// A block with all pages free, on no list.
    pub const fn new() -> Self {
        Self {
            free: [u64::MAX; WORDS],
            kept: [0; WORDS],
            free_pages: BLOCK_PAGES as u16,
            next: NONE,
            previous: NONE,
            queue: Queue::None,
            older: NONE,
            newer: NONE,
            stamp: 0,
            held: false,
        }
    }

    /// The first free run of at least `want` pages, else the longest: start and length.
    pub(crate) fn find_run(&self, want: usize) -> (usize, usize) {
        let (mut best_start, mut best_len) = (0, 0);
        let mut page = 0;
        while page < BLOCK_PAGES {
            let start = self.next_with(page, true);
            let end = self.next_with(start, false);
            if end - start >= want {
                return (start, want);
            }
            if end - start > best_len {
                (best_start, best_len) = (start, end - start);
            }
            page = end.max(page + 1);
        }
        (best_start, best_len)
    }

    /// The first page from `page` on whose bit is `value`, or `BLOCK_PAGES`.
    fn next_with(&self, mut page: usize, value: bool) -> usize {
        while page < BLOCK_PAGES {
            let word = self.free.get(page / 64).copied().unwrap_or(0);
            let word = if value { word } else { !word };
            let rest = word >> (page % 64);
            if rest != 0 {
                return page + rest.trailing_zeros() as usize;
            }
            page = (page / 64 + 1) * 64;
        }
        BLOCK_PAGES
    }

    /// Marks pages as free or in use, and as not kept. Counts those that are free.
    pub(crate) fn set_free(&mut self, start: usize, len: usize, free: bool) {
        let end = start + len;
        let mut page = start;
        let mut changed = 0;
        while page < end {
            let word_end = (page / 64 + 1) * 64;
            let count = end.min(word_end) - page;
            let bits = (u64::MAX >> (64 - count)) << (page % 64);
            if let Some(word) = self.free.get_mut(page / 64) {
                let before = *word;
                *word = if free { before | bits } else { before & !bits };
                changed += (before ^ *word).count_ones() as u16;
            }
            if let Some(word) = self.kept.get_mut(page / 64) {
                *word &= !bits;
            }
            page += count;
        }
        if free {
            self.free_pages += changed;
        } else {
            self.free_pages -= changed;
        }
    }

    /// Marks a page in use as kept or not.
    pub(crate) fn set_kept(&mut self, page: usize, kept: bool) {
        let kept = kept && !self.is_free(page);
        set_bit(&mut self.kept, page, kept);
    }

    /// Whether any page of the block is in use and not kept.
    pub(crate) fn has_evictable(&self) -> bool {
        (self.free.iter().zip(&self.kept)).any(|(free, kept)| free | kept != u64::MAX)
    }

    pub(crate) fn kept(&self) -> KeptPages {
        KeptPages(self.kept)
    }

    pub(crate) fn is_free(&self, page: usize) -> bool {
        has_bit(&self.free, page)
    }
}

fn has_bit(words: &[u64; WORDS], index: usize) -> bool {
    (words.get(index / 64)).is_some_and(|word| word & (1 << (index % 64)) != 0)
}

fn set_bit(words: &mut [u64; WORDS], index: usize, value: bool) {
    if let Some(word) = words.get_mut(index / 64) {
        let bit = 1u64 << (index % 64);
        *word = if value { *word | bit } else { *word & !bit };
    }
}

impl Default for Block {
    fn default() -> Self {
        Self::new()
    }
}
