// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Which block is evicted, and what is kept for huge pages.

use hmm_logic::{Block, BlockAllocator, BLOCK_PAGES};

fn allocator(blocks: usize, reserve: usize) -> BlockAllocator<Vec<Block>> {
    BlockAllocator::new(vec![Block::new(); blocks], reserve)
}

#[test]
fn nothing_is_evicted_for_those_who_brought_it() {
    let mut allocator = allocator(4, 0);
    for _ in 0..4 {
        allocator.allocate(BLOCK_PAGES, 7).unwrap();
    }
    assert_eq!(allocator.victim(7), None);
    assert!(allocator.victim(8).is_some());
}

#[test]
fn the_least_recently_wanted_goes_first() {
    let mut allocator = allocator(3, 0);
    for stamp in 1..=3 {
        allocator.allocate(BLOCK_PAGES, stamp).unwrap();
    }
    allocator.touch(5, 4);
    assert_eq!(allocator.victim(9), Some(1));
    assert_eq!(allocator.victim(9), Some(2));
    assert_eq!(allocator.victim(9), Some(0));
    assert_eq!(allocator.victim(9), None);
}

#[test]
fn every_block_is_a_candidate_at_some_time() {
    let blocks = 1000;
    let mut allocator = allocator(blocks, 0);
    for _ in 0..blocks {
        allocator.allocate(BLOCK_PAGES, 1).unwrap();
    }
    let mut victims: Vec<usize> = (0..blocks).filter_map(|_| allocator.victim(2)).collect();
    victims.sort_unstable();
    assert_eq!(victims, (0..blocks).collect::<Vec<_>>());
}

#[test]
fn a_block_that_is_emptied_is_not_given_out_before_it_is_released() {
    let mut allocator = allocator(1, 0);
    let run = allocator.allocate(BLOCK_PAGES, 1).unwrap();
    assert_eq!(allocator.victim(2), Some(0));
    assert_eq!(allocator.victim(2), None);
    for page in run.first..run.first + run.len {
        allocator.free(page..page + 1).unwrap();
        assert_eq!(allocator.allocate(1, 3), None);
    }
    assert_eq!(
        (allocator.pages_available(), allocator.pages_in_use()),
        (0, 0)
    );
    allocator.release(0);
    assert_eq!(allocator.allocate(BLOCK_PAGES, 3).unwrap().len, BLOCK_PAGES);
}

#[test]
fn the_last_free_blocks_are_for_huge_pages() {
    let mut allocator = allocator(3, 1);
    allocator.allocate(BLOCK_PAGES - 1, 1).unwrap();
    allocator.allocate(BLOCK_PAGES - 1, 1).unwrap();
    // Two single pages are left beside the free block.
    assert_eq!(allocator.allocate(100, 1).unwrap().len, 1);
    assert_eq!(allocator.allocate(100, 1).unwrap().len, 1);
    assert_eq!(allocator.blocks_available(), 1);
    // Only now is the reserve touched.
    assert_eq!(allocator.allocate(100, 1).unwrap().len, 100);
}

#[test]
fn a_block_is_spared_if_all_its_pages_are_to_be_kept() {
    let mut allocator = allocator(2, 0);
    let first = allocator.allocate(BLOCK_PAGES, 1).unwrap();
    allocator.allocate(BLOCK_PAGES, 2).unwrap();
    let (block, page) = (first.first / BLOCK_PAGES, first.first + 7);
    for other in first.first..first.first + BLOCK_PAGES {
        allocator.keep(other, true);
    }
    assert!(allocator.kept(block).first_others().is_empty());
    assert!(allocator.kept(block).contains(7));
    assert_eq!(allocator.victim(10), Some(1 - block));
    assert_eq!(allocator.victim(10), None);
    // One page that may go makes the block a victim.
    allocator.keep(page, false);
    assert!(!allocator.kept(block).contains(7));
    assert_eq!(allocator.victim(10), Some(block));
    allocator.free(page..page + 1).unwrap();
    allocator.release(block);
    assert_eq!(allocator.victim(10), None);
    // What is free cannot be kept, nor is what is given out next.
    allocator.keep(page, true);
    assert!(!allocator.kept(block).contains(7));
    assert_eq!(allocator.allocate(1, 3).unwrap().first, page);
    assert!(!allocator.kept(block).contains(7));
    assert_eq!(allocator.victim(10), Some(block));
}

#[test]
fn pages_to_be_kept_do_not_spare_those_beside_them() {
    let mut allocator = allocator(1, 0);
    let first = allocator.allocate(BLOCK_PAGES, 1).unwrap().first;
    assert_eq!(allocator.kept(0).first_others(), 0..BLOCK_PAGES);
    allocator.keep(first + 7, true);
    assert_eq!(allocator.kept(0).first_others(), 0..7);
    allocator.keep(first, true);
    assert_eq!(allocator.kept(0).first_others(), 1..7);
    allocator.keep(first, false);
    assert_eq!(allocator.victim(10), Some(0));
    for page in (first..first + BLOCK_PAGES).filter(|&page| page != first + 7) {
        allocator.free(page..page + 1).unwrap();
    }
    allocator.release(0);
    // What is left is to be kept, and there is nothing to try again.
    assert_eq!(allocator.victim(10), None);
    assert_eq!(allocator.pages_available(), BLOCK_PAGES - 1);
}

#[test]
fn a_block_that_cannot_be_emptied_does_not_stop_the_others() {
    let mut allocator = allocator(8, 0);
    for stamp in 1..=8 {
        allocator.allocate(BLOCK_PAGES, stamp).unwrap();
    }
    // The oldest block has a pinned page; the caller wants two blocks.
    let mut emptied = 0;
    for _ in 0..3 {
        let block = allocator.victim(9).unwrap();
        if block != 0 {
            let first = block * BLOCK_PAGES;
            allocator.free(first..first + BLOCK_PAGES).unwrap();
            emptied += 1;
        }
        allocator.release(block);
    }
    assert_eq!(emptied, 2);
}

#[test]
fn what_could_not_be_emptied_is_tried_again_when_nothing_else_is_left() {
    let mut allocator = allocator(2, 0);
    allocator.allocate(BLOCK_PAGES, 1).unwrap();
    allocator.allocate(BLOCK_PAGES, 2).unwrap();
    for _ in 0..3 {
        let (first, second) = (allocator.victim(3).unwrap(), allocator.victim(3).unwrap());
        assert_ne!(first, second);
        assert_eq!(allocator.victim(3), None);
        allocator.release(first);
        allocator.release(second);
    }
    // Wanted again, a block is an ordinary one.
    allocator.touch(0, 5);
    assert_eq!(allocator.victim(9), Some(0));
}
