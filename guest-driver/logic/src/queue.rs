// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The two queues of blocks that may be evicted, linked through the blocks themselves: every change
//! costs the same, however many blocks there are.

use crate::block::{Block, Queue, NONE};

/// First and last block of one queue.
#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

/// Both queues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queues {
    recent: Ends,
    deferred: Ends,
}

impl Queues {
    /// Empty queues.
    pub(crate) const fn new() -> Self {
        const EMPTY: Ends = Ends {
            first: NONE,
            last: NONE,
        };
        Self {
            recent: EMPTY,
            deferred: EMPTY,
        }
    }

    /// The first block of `queue`, or [`NONE`].
    pub(crate) fn first(&self, queue: Queue) -> u32 {
        match queue {
            Queue::None => NONE,
            Queue::Recent => self.recent.first,
            Queue::Deferred => self.deferred.first,
        }
    }

    /// Moves a block to the end of `queue`, from whichever queue it is on.
    pub(crate) fn move_to_end(&mut self, blocks: &mut [Block], index: u32, queue: Queue) {
        self.remove(blocks, index);
        let Some(ends) = self.ends(queue) else {
            return;
        };
        let last = core::mem::replace(&mut ends.last, index);
        match get(blocks, last) {
            Some(block) => block.newer = index,
            None => ends.first = index,
        }
        if let Some(block) = get(blocks, index) {
            (block.older, block.newer, block.queue) = (last, NONE, queue);
        }
    }

    /// Takes a block off its queue.
    pub(crate) fn remove(&mut self, blocks: &mut [Block], index: u32) {
        let Some(block) = get(blocks, index) else {
            return;
        };
        let (older, newer) = (block.older, block.newer);
        let queue = core::mem::replace(&mut block.queue, Queue::None);
        let Some(ends) = self.ends(queue) else {
            return;
        };
        match get(blocks, older) {
            Some(block) => block.newer = newer,
            None => ends.first = newer,
        }
        match get(blocks, newer) {
            Some(block) => block.older = older,
            None => ends.last = older,
        }
    }

    fn ends(&mut self, queue: Queue) -> Option<&mut Ends> {
        match queue {
            Queue::None => None,
            Queue::Recent => Some(&mut self.recent),
            Queue::Deferred => Some(&mut self.deferred),
        }
    }
}

fn get(blocks: &mut [Block], index: u32) -> Option<&mut Block> {
    blocks.get_mut(index as usize)
}
