// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The allocator of device memory: 2 MiB blocks of 4 KiB pages.
//!
//! A block is on one of two lists or on none: *free* (all pages free), *partial* (some free), or
//! full. A batch wants contiguous pages, since scattered system pages against one device extent is
//! what the device copies best; so an allocation takes a run from a partial block if one is long
//! enough, else from a free block, else the longest run at hand.

/// Pages of a block.
pub const BLOCK_PAGES: usize = 512;
const WORDS: usize = BLOCK_PAGES / 64;
const NONE: u32 = u32::MAX;
/// How many partial blocks one allocation looks at.
const LOOK: usize = 4;

/// What is known of a block.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// One bit for each page, set while the page is free.
    free: [u64; WORDS],
    free_pages: u16,
    next: u32,
    previous: u32,
}

impl Block {
    /// A block with all pages free, on no list.
    pub const fn new() -> Self {
        Self {
            free: [u64::MAX; WORDS],
            free_pages: BLOCK_PAGES as u16,
            next: NONE,
            previous: NONE,
        }
    }

    /// The first free run of at least `want` pages, else the longest: start and length.
    fn find_run(&self, want: usize) -> (usize, usize) {
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

    fn set_free(&mut self, start: usize, len: usize, free: bool) {
        for page in start..start + len {
            if let Some(word) = self.free.get_mut(page / 64) {
                let bit = 1u64 << (page % 64);
                *word = if free { *word | bit } else { *word & !bit };
            }
        }
    }

    fn is_free(&self, page: usize) -> bool {
        self.free
            .get(page / 64)
            .is_some_and(|word| word & (1 << (page % 64)) != 0)
    }
}

impl Default for Block {
    fn default() -> Self {
        Self::new()
    }
}

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
    blocks: S,
    free: u32,
    partial: u32,
    pages_in_use: usize,
}

impl<S: AsRef<[Block]> + AsMut<[Block]>> BlockAllocator<S> {
    /// An allocator over `blocks`, all of which are new. At most `u32::MAX - 1` blocks are used.
    pub fn new(mut blocks: S) -> Self {
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
        }
    }

    /// Pages in use.
    pub fn pages_in_use(&self) -> usize {
        self.pages_in_use
    }

    /// Takes up to `want` contiguous pages (at least one); `None` if no page is free.
    pub fn allocate(&mut self, want: usize) -> Option<Run> {
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
            Some(run) if run.2 == want => run,
            _ if self.free != NONE => (self.free, 0, want),
            Some(run) => run,
            None => return None,
        };
        self.change(index, start, len, false);
        self.pages_in_use += len;
        Some(Run {
            first: index as usize * BLOCK_PAGES + start,
            len,
        })
    }

    /// Takes a whole block, for a huge page; `None` if no block is free.
    pub fn allocate_block(&mut self) -> Option<Run> {
        let index = self.free;
        self.block(index)?;
        self.change(index, 0, BLOCK_PAGES, false);
        self.pages_in_use += BLOCK_PAGES;
        Some(Run {
            first: index as usize * BLOCK_PAGES,
            len: BLOCK_PAGES,
        })
    }

    /// Gives a page back.
    ///
    /// # Errors
    ///
    /// [`DoubleFree`]; nothing changes.
    pub fn free(&mut self, page: usize) -> Result<(), DoubleFree> {
        let index = u32::try_from(page / BLOCK_PAGES).map_err(|_| DoubleFree)?;
        let block = self.block(index).ok_or(DoubleFree)?;
        if block.is_free(page % BLOCK_PAGES) {
            return Err(DoubleFree);
        }
        self.change(index, page % BLOCK_PAGES, 1, true);
        self.pages_in_use -= 1;
        Ok(())
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

    fn block(&self, index: u32) -> Option<&Block> {
        self.blocks.as_ref().get(index as usize)
    }

    fn block_mut(&mut self, index: u32) -> Option<&mut Block> {
        self.blocks.as_mut().get_mut(index as usize)
    }

    /// Marks pages of a block and moves it to the list that it now belongs to.
    fn change(&mut self, index: u32, start: usize, len: usize, free: bool) {
        let Some(block) = self.block_mut(index) else {
            return;
        };
        let before = usize::from(block.free_pages);
        block.set_free(start, len, free);
        let after = block
            .free
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum();
        block.free_pages = after as u16;
        let list = |free_pages| match free_pages {
            0 => List::None,
            BLOCK_PAGES => List::Free,
            _ => List::Partial,
        };
        if list(before) != list(after) {
            self.unlink(index, list(before));
            self.link(index, list(after));
        }
    }

    fn head(&mut self, list: List) -> Option<&mut u32> {
        match list {
            List::None => None,
            List::Free => Some(&mut self.free),
            List::Partial => Some(&mut self.partial),
        }
    }

    fn link(&mut self, index: u32, list: List) {
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

/// The list that a block is on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    None,
    Free,
    Partial,
}
