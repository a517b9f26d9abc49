// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages of a block.

use std::ops::Range;

/// Bytes of a page. The driver exists for x86-64 only.
pub(in crate::run) const PAGE_BYTES: u64 = 4096;
/// Bytes of a block, which is aligned to them: a huge page.
pub(in crate::run) const BLOCK_BYTES: u64 = 2 << 20;
/// Pages of a block.
pub(super) const BLOCK_PAGES: u32 = (BLOCK_BYTES / PAGE_BYTES) as u32;

const WORDS: usize = BLOCK_PAGES as usize / 64;

/// A set of pages of a block, by their index in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::run) struct PageSet([u64; WORDS]);

impl PageSet {
    /// Adds the pages of a range of indexes. What lies beyond the block is left out.
    pub(in crate::run) fn add(&mut self, pages: Range<u32>) {
        for page in pages.start..pages.end.min(BLOCK_PAGES) {
            self.0[page as usize / 64] |= 1 << (page % 64);
        }
    }

    pub(super) fn contains(&self, page: u32) -> bool {
        page < BLOCK_PAGES && self.0[page as usize / 64] & (1 << (page % 64)) != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        self.combined(other, |a, b| a & b)
    }

    pub(super) fn or(&self, other: &Self) -> Self {
        self.combined(other, |a, b| a | b)
    }

    pub(super) fn without(&self, other: &Self) -> Self {
        self.combined(other, |a, b| a & !b)
    }

    fn combined(&self, other: &Self, operation: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|word| {
            operation(self.0[word], other.0[word])
        }))
    }

    /// The ranges that cover the first `most` pages of the set. A range goes through pages that are not in the set,
    /// because it costs one call; but at `gap` or more pages of `others` between two of its own it ends, because it moves them.
    pub(super) fn runs(&self, most: u32, others: &Self, gap: u32) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        let mut left = most;
        let mut between = 0;
        for page in 0..BLOCK_PAGES {
            if left == 0 {
                break;
            }
            if !self.contains(page) {
                between += u32::from(others.contains(page));
                continue;
            }
            left -= 1;
            match runs.last_mut() {
                Some(run) if between < gap => run.end = page + 1,
                _ => runs.push(page..page + 1),
            }
            between = 0;
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_PAGES, PageSet};

    fn set(ranges: &[(u32, u32)]) -> PageSet {
        let mut set = PageSet::default();
        for (start, end) in ranges {
            set.add(*start..*end);
        }
        set
    }

    fn runs(set: &PageSet, most: u32, others: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let runs = set.runs(most, &self::set(others), 3);
        runs.into_iter().map(|run| (run.start, run.end)).collect()
    }

    #[test]
    fn sets_have_their_pages() {
        let some = set(&[(0, 2), (63, 65), (511, 600)]);
        assert_eq!(some.len(), 5);
        assert!(some.contains(64) && some.contains(511) && !some.contains(2));
        assert!(!some.contains(BLOCK_PAGES));
        assert_eq!(some.without(&set(&[(0, 64)])), set(&[(64, 65), (511, 512)]));
        assert_eq!(some.and(&set(&[(1, 64)])), set(&[(1, 2), (63, 64)]));
        assert_eq!(some.or(&set(&[(2, 63)])), set(&[(0, 65), (511, 512)]));
        assert!(PageSet::default().is_empty());
    }

    #[test]
    fn runs_go_through_holes_and_a_few_others() {
        let some = set(&[(0, 4), (10, 12), (20, 22)]);
        assert_eq!(runs(&some, 512, &[]), [(0, 22)]);
        assert_eq!(runs(&some, 512, &[(14, 17)]), [(0, 12), (20, 22)]);
        assert_eq!(runs(&some, 512, &[(4, 6), (14, 16)]), [(0, 22)]);
        assert_eq!(runs(&some, 5, &[]), [(0, 11)]);
        assert_eq!(runs(&some, 0, &[]), []);
    }
}
