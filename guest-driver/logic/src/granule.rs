// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Which pages of 2 MiB of addresses a device may access, and how.

use core::ops::Range;

/// Pages of a granule.
pub const GRANULE_PAGES: usize = 512;
const WORDS: usize = GRANULE_PAGES / 64;

/// What a device may do with a page. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageAccess {
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Read and write it atomically.
    Atomic,
}

/// What a device may access of 512 pages, and how often it asked for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granule {
    /// One bit a page for each kind of access.
    bits: [[u64; WORDS]; 3],
    touches: u32,
}

impl Default for Granule {
    fn default() -> Self {
        Self::new()
    }
}

impl Granule {
    /// Nothing may be accessed.
    pub const fn new() -> Self {
        Self {
            bits: [[0; WORDS]; 3],
            touches: 0,
        }
    }

    /// Gives `access`, and nothing beyond it, to `pages`; those beyond the last page are ignored.
    pub fn give(&mut self, pages: Range<usize>, access: PageAccess) {
        for (kind, bits) in [PageAccess::Read, PageAccess::Write, PageAccess::Atomic]
            .into_iter()
            .zip(&mut self.bits)
        {
            for (word, mask) in masks(pages.clone()) {
                match kind <= access {
                    true => bits[word] |= mask,
                    false => bits[word] &= !mask,
                }
            }
        }
    }

    /// Takes all access to `pages` away.
    pub fn take(&mut self, pages: Range<usize>) {
        for bits in &mut self.bits {
            for (word, mask) in masks(pages.clone()) {
                bits[word] &= !mask;
            }
        }
    }

    /// Whether any of `pages` may be accessed.
    pub fn any(&self, pages: Range<usize>) -> bool {
        masks(pages).any(|(word, mask)| self.bits[0][word] & mask != 0)
    }

    /// Whether `page` may be accessed in this way.
    pub fn has(&self, page: usize, access: PageAccess) -> bool {
        let bits = &self.bits[access as usize];
        bits.get(page / 64)
            .is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    /// How many pages may be accessed.
    pub fn pages(&self) -> usize {
        self.bits[0]
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// The device asked for a page once more; returns how often it has.
    pub fn touch(&mut self) -> u32 {
        self.touches = self.touches.saturating_add(1);
        self.touches
    }

    /// Forgets how often the device asked.
    pub fn forget_touches(&mut self) {
        self.touches = 0;
    }

    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.touches == 0 && self.bits[0].iter().all(|&word| word == 0)
    }
}

/// The words in which bits of `pages` are, and these bits.
fn masks(pages: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let end = pages.end.min(GRANULE_PAGES);
    let start = pages.start.min(end);
    (start / 64..end.div_ceil(64)).map(move |word| {
        let first = word * 64;
        let from = start.max(first) - first;
        let to = end.min(first + 64) - first;
        let above = if to == 64 { 0 } else { u64::MAX << to };
        (word, (u64::MAX << from) & !above)
    })
}
