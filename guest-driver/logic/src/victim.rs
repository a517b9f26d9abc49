// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Which block is evicted when device memory is short: the least recently wanted one.
//!
//! The kernel does not tell whether a device page is used, so what counts is the last request that
//! wanted a page of the block on the device. Time is counted in requests. A request never evicts
//! what it or a later one has brought: that would not end.
//!
//! A block in which an eviction left pages, for instance because they are pinned, becomes the second
//! choice, until a page of it is wanted again. So one such block does not stop the eviction of all others.
//!
//! Pages that are to be kept stay; the others of their block go.

use crate::block::{Block, Queue};
use crate::blocks::BlockAllocator;

/// Blocks of each queue that one call looks at. Requests that run side by side may touch blocks out
/// of order, by at most as many blocks as they have batches.
const LOOK: usize = 16;

impl<S: AsRef<[Block]> + AsMut<[Block]>> BlockAllocator<S> {
    /// Chooses a block with pages in use that are not to be kept ([`BlockAllocator::kept`]), and of
    /// which none was wanted at `before` or later. Gives out no page of it until
    /// [`BlockAllocator::release`]. Takes the same time for any number of blocks.
    pub fn victim(&mut self, before: u64) -> Option<usize> {
        let index = self
            .oldest_of(Queue::Recent, before)
            .or_else(|| self.next_deferred(before))?;
        let index = index as usize;
        self.hold(index).then_some(index)
    }

    /// The oldest block at the front of a queue.
    fn oldest_of(&self, queue: Queue, before: u64) -> Option<u32> {
        let mut oldest: Option<(u32, u64)> = None;
        let mut index = self.queues.first(queue);
        for _ in 0..LOOK {
            let Some(block) = self.block(index) else {
                break;
            };
            if block.stamp < before && oldest.is_none_or(|(_, stamp)| block.stamp < stamp) {
                oldest = Some((index, block.stamp));
            }
            index = block.newer;
        }
        oldest.map(|(index, _)| index)
    }

    /// The first deferred block that may go. Those before it are looked at last next time.
    fn next_deferred(&mut self, before: u64) -> Option<u32> {
        for _ in 0..LOOK {
            let index = self.queues.first(Queue::Deferred);
            let block = self.block(index)?;
            if block.stamp < before {
                return Some(index);
            }
            self.queues
                .move_to_end(self.blocks.as_mut(), index, Queue::Deferred);
        }
        None
    }

    /// Puts a block on the queue that it belongs to now: on none if it cannot be evicted, else it
    /// stays where it is, or becomes the last of `queue`.
    pub(crate) fn requeue(&mut self, index: u32, queue: Queue) {
        let Some(block) = self.block(index) else {
            return;
        };
        if block.held || !block.has_evictable() {
            self.queues.remove(self.blocks.as_mut(), index);
        } else if block.queue == Queue::None {
            self.queues.move_to_end(self.blocks.as_mut(), index, queue);
        }
    }

    /// A block was wanted later than before: it becomes the last to be evicted.
    pub(crate) fn make_newest(&mut self, index: u32) {
        if self
            .block(index)
            .is_some_and(|block| block.queue != Queue::None)
        {
            self.queues
                .move_to_end(self.blocks.as_mut(), index, Queue::Recent);
        }
    }
}
