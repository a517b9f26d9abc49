// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Which block has to go when others want device memory: the one that was wanted there least
//! recently, among those that a clock's hand comes to next.
//!
//! Nobody can see whether a device page is used, so what counts is when somebody last wanted it
//! there. Time is counted in requests, and a request is never served by evicting what it, or a
//! later one, has brought: that would not end.

use crate::block::{Block, BLOCK_PAGES};
use crate::blocks::BlockAllocator;

/// Candidates that are compared. With fewer blocks than that, the choice is exact.
const CANDIDATES: usize = 64;

impl<S: AsRef<[Block]> + AsMut<[Block]>> BlockAllocator<S> {
    /// Chooses a block with pages in use of which none is to be kept, and none was wanted at
    /// `before` or later, and gives out no page of it until [`BlockAllocator::release`].
    pub fn victim(&mut self, before: u64) -> Option<usize> {
        let blocks = self.blocks.as_ref();
        let (after, upto) = blocks.split_at_checked(self.hand)?;
        let (mut oldest, mut candidates) = (None, 0);
        let mut hand = self.hand;
        for (index, block) in (self.hand..).zip(upto).chain((0..).zip(after)) {
            hand = index + 1;
            let empty = usize::from(block.free_pages) == BLOCK_PAGES;
            if empty || block.held || block.stamp >= before || block.has_kept() {
                continue;
            }
            if oldest.is_none_or(|(_, stamp)| block.stamp < stamp) {
                oldest = Some((index, block.stamp));
            }
            candidates += 1;
            if candidates == CANDIDATES {
                break;
            }
        }
        self.hand = if hand < blocks.len() { hand } else { 0 };
        let (index, _) = oldest?;
        self.hold(index).then_some(index)
    }
}
