// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The allocator of device memory.
//!
//! A block is on one of two lists or on none: *free* (all pages free), *partial* (some free), or
//! full or held. A batch wants contiguous pages, since scattered system pages against one device
//! extent is what the device copies best; so an allocation takes a run from a partial block if one
//! is long enough, else from a free block, else the longest run at hand. The last free blocks are
//! for huge pages as long as anything else is left.

use crate::block::{Block, KeptPages, Queue, BLOCK_PAGES, NONE};
use crate::queue::Queues;
use core::ops::Range;

/// How many partial blocks one allocation looks at.
const LOOK: usize = 4;

/// Contiguous device pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index of the first page.
    pub first: usize,
    /// Number of pages, at most [`BLOCK_PAGES`]; a run does not cross a block.
    pub len: usize,
}

/// A page was freed that is not in use, or does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoubleFree;

/// The allocator. `S` is where the blocks are kept: the driver and the tests bring their own.
#[derive(Debug)]
pub struct BlockAllocator<S> {
    pub(crate) blocks: S,
    free: u32,
    partial: u32,
    pages_in_use: usize,
    /// Blocks that are free and not held.
    free_blocks: usize,
    /// Free blocks that are kept for huge pages.
    reserve: usize,
    /// Free pages of held blocks.
    held_pages: usize,
    /// The blocks that may be evicted.
    pub(crate) queues: Queues,
}

impl<S: AsRef<[Block]> + AsMut<[Block]>> BlockAllocator<S> {
    /// An allocator over `blocks`, all of which are new. At most `u32::MAX - 1` blocks are used.
    /// While anything else is left, the last `reserve` free blocks are for huge pages.
    pub fn new(mut blocks: S, reserve: usize) -> Self {
        let count = blocks.as_ref().len().min(NONE as usize - 1) as u32;
        for (index, block) in (0..count).zip(blocks.as_mut()) {
            *block = Block::new();
            block.next = if index + 1 < count { index + 1 } else { NONE };
            block.previous = index.checked_sub(1).unwrap_or(NONE);
        }
        Self {
            blocks,
            free: if count > 0 { 0 } else { NONE },
            partial: NONE,
            pages_in_use: 0,
            free_blocks: count as usize,
            reserve,
            held_pages: 0,
            queues: Queues::new(),
        }
    }

    /// Pages that can be allocated now.
    pub fn pages_available(&self) -> usize {
        let pages = self.blocks.as_ref().len() * BLOCK_PAGES;
        pages.saturating_sub(self.pages_in_use + self.held_pages)
    }

    /// Blocks that can be allocated now as a whole.
    pub fn blocks_available(&self) -> usize {
        self.free_blocks
    }

    /// Pages in use.
    pub fn pages_in_use(&self) -> usize {
        self.pages_in_use
    }

    /// Takes up to `want` contiguous pages (at least one) at time `stamp`; `None` if no page is
    /// free.
    pub fn allocate(&mut self, want: usize, stamp: u64) -> Option<Run> {
        let want = want.clamp(1, BLOCK_PAGES);
        let mut best: Option<(u32, usize, usize)> = None;
        let mut index = self.partial;
        for _ in 0..LOOK {
            let Some(block) = self.block(index) else {
                break;
            };
            let (start, len) = block.find_run(want);
            if best.is_none_or(|(_, _, best_len)| len > best_len) {
                best = Some((index, start, len));
            }
            if len == want {
                break;
            }
            index = block.next;
        }
        let (index, start, len) = match best {
            Some(run) if run.2 == want || self.free_blocks <= self.reserve => run,
            _ if self.free != NONE => (self.free, 0, want),
            Some(run) => run,
            None => return None,
        };
        self.change(index, start, len, false);
        self.touch(index as usize * BLOCK_PAGES, stamp);
        self.pages_in_use += len;
        Some(Run {
            first: index as usize * BLOCK_PAGES + start,
            len,
        })
    }

    /// Takes a whole block at time `stamp`, for a huge page; `None` if no block is free.
    pub fn allocate_block(&mut self, stamp: u64) -> Option<Run> {
        let index = self.free;
        self.block(index)?;
        self.change(index, 0, BLOCK_PAGES, false);
        self.touch(index as usize * BLOCK_PAGES, stamp);
        self.pages_in_use += BLOCK_PAGES;
        Some(Run {
            first: index as usize * BLOCK_PAGES,
            len: BLOCK_PAGES,
        })
    }

    /// Gives pages back.
    ///
    /// # Errors
    ///
    /// [`DoubleFree`]: some of them are not in use, or do not exist. The others are free now.
    pub fn free(&mut self, pages: Range<usize>) -> Result<(), DoubleFree> {
        let wanted = pages.len();
        let last = self.blocks.as_ref().len() * BLOCK_PAGES;
        let (mut page, end) = (pages.start, pages.end.min(last));
        let mut freed = 0;
        while page < end {
            let Ok(index) = u32::try_from(page / BLOCK_PAGES) else {
                break;
            };
            let block_end = end.min((page / BLOCK_PAGES + 1) * BLOCK_PAGES);
            freed += self.change(index, page % BLOCK_PAGES, block_end - page, true);
            page = block_end;
        }
        self.pages_in_use -= freed;
        if freed == wanted {
            Ok(())
        } else {
            Err(DoubleFree)
        }
    }

    /// A page was wanted on the device at time `stamp`.
    pub fn touch(&mut self, page: usize, stamp: u64) {
        let Ok(index) = u32::try_from(page / BLOCK_PAGES) else {
            return;
        };
        if let Some(block) = self.block_mut(index).filter(|block| block.stamp < stamp) {
            block.stamp = stamp;
            self.make_newest(index);
        }
    }

    /// Marks a page in use as one to be kept or not. A block whose pages are all to be kept is no
    /// victim. A page that is given back is not kept any more.
    pub fn keep(&mut self, page: usize, keep: bool) {
        let Ok(index) = u32::try_from(page / BLOCK_PAGES) else {
            return;
        };
        if let Some(block) = self.block_mut(index) {
            block.set_kept(page % BLOCK_PAGES, keep);
            self.requeue(index, Queue::Recent);
        }
    }

    /// The pages of a block that are to be kept.
    pub fn kept(&self, block: usize) -> KeptPages {
        let blocks = self.blocks.as_ref();
        blocks.get(block).map(Block::kept).unwrap_or_default()
    }

    /// Gives out no page of a block any more. False if there is no such block, or it is held.
    pub(crate) fn hold(&mut self, index: usize) -> bool {
        let Ok(number) = u32::try_from(index) else {
            return false;
        };
        let Some(&Block {
            held, free_pages, ..
        }) = self.block(number)
        else {
            return false;
        };
        if held {
            return false;
        }
        let free_pages = usize::from(free_pages);
        self.unlink(number, list(free_pages));
        self.held_pages += free_pages;
        if let Some(block) = self.block_mut(number) {
            block.held = true;
        }
        self.requeue(number, Queue::None);
        true
    }

    /// Undoes [`BlockAllocator::victim`]: the block's free pages can be allocated. If pages are still
    /// in use, the block is deferred.
    pub fn release(&mut self, index: usize) {
        let Ok(number) = u32::try_from(index) else {
            return;
        };
        let Some(block) = self.block_mut(number).filter(|block| block.held) else {
            return;
        };
        block.held = false;
        let free_pages = usize::from(block.free_pages);
        self.held_pages -= free_pages;
        self.link(number, list(free_pages));
        self.requeue(number, Queue::Deferred);
    }

    /// The first block from `from` on that has pages in use.
    pub fn next_in_use(&self, from: usize) -> Option<usize> {
        let blocks = self.blocks.as_ref();
        (from..blocks.len()).find(|&index| {
            blocks
                .get(index)
                .is_some_and(|block| usize::from(block.free_pages) < BLOCK_PAGES)
        })
    }

    pub(crate) fn block(&self, index: u32) -> Option<&Block> {
        self.blocks.as_ref().get(index as usize)
    }

    fn block_mut(&mut self, index: u32) -> Option<&mut Block> {
        self.blocks.as_mut().get_mut(index as usize)
    }

    /// Marks pages of a block and moves it to the list that it now belongs to. Returns how many of
    /// them were marked otherwise before.
    fn change(&mut self, index: u32, start: usize, len: usize, free: bool) -> usize {
        let Some(block) = self.block_mut(index) else {
            return 0;
        };
        let before = usize::from(block.free_pages);
        block.set_free(start, len, free);
        let after = usize::from(block.free_pages);
        if block.held {
            self.held_pages = self.held_pages + after - before;
        } else if list(before) != list(after) {
            self.unlink(index, list(before));
            self.link(index, list(after));
        }
        self.requeue(index, Queue::Recent);
        before.abs_diff(after)
    }

    fn head(&mut self, list: List) -> Option<&mut u32> {
        match list {
            List::None => None,
            List::Free => Some(&mut self.free),
            List::Partial => Some(&mut self.partial),
        }
    }

    fn link(&mut self, index: u32, list: List) {
        if list == List::Free {
            self.free_blocks += 1;
        }
        let Some(head) = self.head(list) else {
            return;
        };
        let next = core::mem::replace(head, index);
        if let Some(block) = self.block_mut(index) {
            block.next = next;
            block.previous = NONE;
        }
        if let Some(block) = self.block_mut(next) {
            block.previous = index;
        }
    }

    fn unlink(&mut self, index: u32, list: List) {
        if list == List::None {
            // The links are those of the list that the block was on last.
            return;
        }
        if list == List::Free {
            self.free_blocks -= 1;
        }
        let Some(&Block { next, previous, .. }) = self.block(index) else {
            return;
        };
        if let Some(block) = self.block_mut(next) {
            block.previous = previous;
        }
        if let Some(block) = self.block_mut(previous) {
            block.next = next;
        } else if let Some(head) = self.head(list) {
            *head = next;
        }
    }
}

/// The list for a block with so many free pages that is not held.
fn list(free_pages: usize) -> List {
    match free_pages {
        0 => List::None,
        BLOCK_PAGES => List::Free,
        _ => List::Partial,
    }
}

/// The list that a block is on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    None,
    Free,
    Partial,
}
