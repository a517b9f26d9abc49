// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The block allocator against a set of pages.

use hmm_logic::{Block, BlockAllocator, DoubleFree, BLOCK_PAGES};
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize),
    AllocateBlock,
    /// Frees the n-th page in use (modulo their number).
    Free(usize),
    /// Frees all pages in use of a block (modulo their number).
    FreeBlock(usize),
    /// Frees a page that is not in use, or does not exist.
    FreeUnused(usize),
    /// Frees so many pages from the n-th (modulo their number) on, whether they are in use or not.
    FreeRange(usize, usize),
    /// Has the n-th page (modulo their number) kept, or not.
    Keep(usize, bool),
    /// Chooses a victim among what is older than so many steps.
    Victim(usize),
    /// Releases a held block.
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0usize..700).prop_map(Step::Allocate),
        1 => Just(Step::AllocateBlock),
        40 => any::<usize>().prop_map(Step::Free),
        10 => any::<usize>().prop_map(Step::FreeBlock),
        1 => (0..usize::MAX).prop_map(Step::FreeUnused),
        4 => (any::<usize>(), 0usize..1500).prop_map(|(n, len)| Step::FreeRange(n, len)),
        10 => any::<(usize, bool)>().prop_map(|(n, keep)| Step::Keep(n, keep)),
        4 => (0usize..100).prop_map(Step::Victim),
        5 => any::<usize>().prop_map(Step::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn behaves_like_a_set_of_pages(
        blocks in 0usize..6,
        reserve in 0usize..3,
        steps in prop::collection::vec(step(), 0..400),
    ) {
        let mut allocator = BlockAllocator::new(vec![Block::new(); blocks], reserve);
        let mut used = BTreeSet::new();
        let mut kept = BTreeSet::new();
        let mut held = BTreeSet::new();
        let mut stamps = vec![0; blocks];
        for (now, step) in (1u64..).zip(steps) {
            match step {
                Step::Allocate(want) => match allocator.allocate(want, now) {
                    Some(run) => {
                        prop_assert!(run.len >= 1 && run.len <= want.clamp(1, BLOCK_PAGES));
                        prop_assert!(run.first + run.len <= blocks * BLOCK_PAGES);
                        prop_assert_eq!(
                            run.first / BLOCK_PAGES,
                            (run.first + run.len - 1) / BLOCK_PAGES
                        );
                        prop_assert!(!held.contains(&(run.first / BLOCK_PAGES)));
                        stamps[run.first / BLOCK_PAGES] = now;
                        for page in run.first..run.first + run.len {
                            prop_assert!(used.insert(page), "page {page} given out twice");
                        }
                    }
                    None => prop_assert_eq!(available(blocks, &used, &held), 0),
                },
                Step::AllocateBlock => {
                    let free_block = (0..blocks).find(|block| {
                        let first = block * BLOCK_PAGES;
                        !held.contains(block)
                            && used.range(first..first + BLOCK_PAGES).next().is_none()
                    });
                    let run = allocator.allocate_block(now);
                    prop_assert_eq!(run.is_some(), free_block.is_some());
                    if let Some(run) = run {
                        prop_assert_eq!((run.first % BLOCK_PAGES, run.len), (0, BLOCK_PAGES));
                        prop_assert!(!held.contains(&(run.first / BLOCK_PAGES)));
                        stamps[run.first / BLOCK_PAGES] = now;
                        for page in run.first..run.first + run.len {
                            prop_assert!(used.insert(page), "page {page} given out twice");
                        }
                    }
                }
                Step::Free(n) => {
                    if let Some(&page) = used.iter().nth(n % used.len().max(1)) {
                        prop_assert_eq!(allocator.free(page..page + 1), Ok(()));
                        used.remove(&page);
                    }
                }
                Step::FreeBlock(n) => {
                    let first = n % blocks.max(1) * BLOCK_PAGES;
                    for page in first..first + BLOCK_PAGES {
                        if used.remove(&page) {
                            prop_assert_eq!(allocator.free(page..page + 1), Ok(()));
                        }
                    }
                }
                Step::FreeUnused(page) => {
                    if !used.contains(&page) {
                        prop_assert_eq!(allocator.free(page..page + 1), Err(DoubleFree));
                    }
                }
                Step::FreeRange(n, len) => {
                    let first = n % (blocks * BLOCK_PAGES).max(1);
                    let in_use = (first..first + len).filter(|page| used.remove(page)).count();
                    let expected = if in_use == len { Ok(()) } else { Err(DoubleFree) };
                    prop_assert_eq!(allocator.free(first..first + len), expected);
                }
                Step::Keep(n, keep) => {
                    let page = n % (blocks * BLOCK_PAGES).max(1);
                    allocator.keep(page, keep);
                    if keep && used.contains(&page) {
                        kept.insert(page);
                    } else {
                        kept.remove(&page);
                    }
                }
                Step::Victim(age) => {
                    let before = now.saturating_sub(age as u64);
                    let eligible = |block: &usize| {
                        let first = block * BLOCK_PAGES;
                        !held.contains(block)
                            && stamps[*block] < before
                            && (used.range(first..first + BLOCK_PAGES))
                                .any(|page| !kept.contains(page))
                    };
                    let victim = allocator.victim(before);
                    prop_assert_eq!(victim.is_some(), (0..blocks).any(|block| eligible(&block)));
                    if let Some(block) = victim {
                        prop_assert!(eligible(&block));
                        held.insert(block);
                    }
                }
                Step::Release(n) => {
                    if let Some(&block) = held.iter().nth(n % held.len().max(1)) {
                        allocator.release(block);
                        held.remove(&block);
                    }
                }
            }
            kept.retain(|page| used.contains(page));
            for block in 0..blocks {
                let pages = allocator.kept(block);
                let found = (0..BLOCK_PAGES).filter(|&page| pages.contains(page));
                let first = block * BLOCK_PAGES;
                let expected = kept.range(first..first + BLOCK_PAGES).map(|page| page - first);
                prop_assert!(found.eq(expected));
            }
            prop_assert_eq!(allocator.pages_available(), available(blocks, &used, &held));
            let free_blocks = (0..blocks).filter(|block| {
                let first = block * BLOCK_PAGES;
                !held.contains(block) && used.range(first..first + BLOCK_PAGES).next().is_none()
            });
            prop_assert_eq!(allocator.blocks_available(), free_blocks.count());
            prop_assert_eq!(allocator.pages_in_use(), used.len());
            prop_assert_eq!(
                allocator.next_in_use(0),
                used.first().map(|page| page / BLOCK_PAGES)
            );
        }
    }
}

/// Pages that are neither used nor in a held block.
fn available(blocks: usize, used: &BTreeSet<usize>, held: &BTreeSet<usize>) -> usize {
    let unavailable = held.iter().map(|block| {
        let first = block * BLOCK_PAGES;
        BLOCK_PAGES - used.range(first..first + BLOCK_PAGES).count()
    });
    blocks * BLOCK_PAGES - used.len() - unavailable.sum::<usize>()
}

#[test]
fn a_batch_gets_one_extent_while_a_block_is_free() {
    let mut allocator = BlockAllocator::new(vec![Block::new(); 4], 0);
    let single = allocator.allocate(1, 1).unwrap();
    let batch = allocator.allocate(BLOCK_PAGES, 1).unwrap();
    assert_eq!(batch.len, BLOCK_PAGES);
    // The small allocation and the next one share a block.
    assert_eq!(
        allocator.allocate(1, 1).unwrap().first / BLOCK_PAGES,
        single.first / BLOCK_PAGES
    );
}

#[test]
fn freed_pages_of_a_full_device_are_found_again() {
    let mut allocator = BlockAllocator::new(vec![Block::new(); 2], 0);
    while allocator.allocate(100, 1).is_some() {}
    assert_eq!(allocator.pages_in_use(), 2 * BLOCK_PAGES);
    for page in [3, 4, 5, 900] {
        allocator.free(page..page + 1).unwrap();
    }
    let mut found: Vec<usize> = Vec::new();
    while let Some(run) = allocator.allocate(8, 2) {
        found.extend(run.first..run.first + run.len);
    }
    found.sort_unstable();
    assert_eq!(found, [3, 4, 5, 900]);
}
