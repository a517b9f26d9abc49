// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which memory to move next.

use super::block::{Block, BlockId, SMALLEST_TRIAL, Seen, Verdict};
use super::page_set::{BLOCK_BYTES, BLOCK_PAGES, PAGE_BYTES, PageSet};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

/// Where a move goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::run) enum Side {
    Device,
    System,
}

/// A range of a process to be moved in one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::run) struct Move {
    pub(in crate::run) pid: i32,
    pub(in crate::run) range: Range<u64>,
    pub(in crate::run) to: Side,
}

/// What distinguishes the policies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Time that stalls and moves may take, as a share of the time that the program gets on.
    pub(crate) share: f64,
    /// Whether memory in use is left alone. If not, all memory is moved in turn.
    pub(crate) learns: bool,
}

/// Pages that one look may send to the device at first.
const FIRST_WINDOW: u32 = 256;
/// The same at least.
const SMALLEST_WINDOW: u32 = 64;
/// The same at most: 128 MiB.
const LARGEST_WINDOW: u32 = 32 << 10;
/// What a huge page counts for in the window: it moves by one entry and comes back by one fault.
const HUGE_PAGE_COUNT: u32 = 16;
/// Pages of the first trial of a new block, until the program's blocks teach better.
const FIRST_TRIAL: u32 = 32;
/// Fewer pages of a block are not worth a call.
const LEAST_YIELD: u32 = 8;
/// So many pages in use between others are not worth taking along: to fault them in costs more than a second call.
const WIDEST_GAP: u32 = 4;
/// Most bytes of one move: between two moves the mover notices that the program has ended.
const MOVE_BYTES: u64 = 16 << 20;
/// Most blocks that are migrated back after one look.
const RELIEF_BLOCKS: usize = 64;

/// What is moved first: the block with the shortest wait, then the one that gives the most pages.
type Rank = (Duration, u32);

/// All blocks of a program, and how much to move at once.
#[derive(Debug)]
pub(super) struct Planner {
    rules: Rules,
    probation: Duration,
    blocks: BTreeMap<BlockId, Block>,
    /// Pages that the next look may send to the device: doubles while the credit is ample, and
    /// shrinks when it is spent, as the window of a network connection does.
    window: u32,
    /// Pages of the first trial of a block that nothing is known of.
    first_trial: u32,
    /// Number of the last move.
    moves: u64,
}

impl Planner {
    pub(super) fn new(rules: Rules, probation: Duration) -> Self {
        Self {
            rules,
            probation,
            blocks: BTreeMap::new(),
            window: FIRST_WINDOW,
            first_trial: FIRST_TRIAL,
            moves: 0,
        }
    }

    /// Takes in what a look found, which is all that the program has.
    pub(super) fn see(&mut self, found: &[Seen], now: Duration) {
        for seen in found {
            let Some(block) = self.blocks.get_mut(&seen.id) else {
                // Memory that has just come into use is seldom at rest.
                let due = if self.rules.learns {
                    now + self.probation
                } else {
                    now
                };
                let block = Block::new(seen, self.first_trial, due);
                self.blocks.insert(seen.id, block);
                continue;
            };
            match block.see(seen, now, self.probation) {
                Verdict::Open | Verdict::Mixed => {}
                Verdict::Rests => self.first_trial = (self.first_trial * 2).min(BLOCK_PAGES),
                Verdict::InUse => self.first_trial = (self.first_trial / 4).max(SMALLEST_TRIAL),
            }
        }
        self.blocks
            .retain(|_, block| std::mem::take(&mut block.is_met));
    }

    /// Moves to the device that are due.
    pub(super) fn outgoing(&mut self, now: Duration, is_ample: bool) -> Vec<Move> {
        let mut moves = Vec::new();
        let mut taken = BTreeSet::new();
        let resting = if self.rules.learns {
            self.window
        } else {
            self.window / 2
        };
        let unused = self.send(&mut moves, &mut taken, resting, |block| {
            let (pages, quota) = block.candidates(now);
            let amount = pages.len().min(quota);
            let quota = if amount < LEAST_YIELD { 0 } else { quota };
            (
                (block.wait(), BLOCK_PAGES.saturating_sub(amount)),
                pages,
                quota,
            )
        });
        let unused = if self.rules.learns {
            unused
        } else {
            // What is in use takes its turn, too.
            let rest = self.window - resting + unused;
            self.send(&mut moves, &mut taken, rest, |block| {
                ((Duration::ZERO, 0), block.present, BLOCK_PAGES)
            })
        };
        if unused == 0 && is_ample {
            self.window = (self.window * 2).min(LARGEST_WINDOW);
        }
        moves
    }

    /// Adds moves of up to `window` pages of blocks that are not taken; the rest of the window. Of each block, `select` tells the rank, the pages
    /// that may be moved and how many of them. The lowest rank goes first, and of equals the one that was moved first.
    fn send(
        &self,
        moves: &mut Vec<Move>,
        taken: &mut BTreeSet<BlockId>,
        window: u32,
        select: impl Fn(&Block) -> (Rank, PageSet, u32),
    ) -> u32 {
        let mut due: Vec<(Rank, u64, BlockId)> = Vec::new();
        for (id, block) in &self.blocks {
            let (rank, pages, quota) = select(block);
            if !taken.contains(id) && quota > 0 && !pages.is_empty() {
                due.push((rank, block.moved, *id));
            }
        }
        due.sort_unstable();
        let mut left = window;
        // Neighbours are moved in one call, so the chosen ones go in the order of addresses.
        let mut chosen: Vec<(BlockId, u32)> = Vec::new();
        for (_, _, id) in due {
            if left == 0 {
                break;
            }
            let Some(block) = self.blocks.get(&id) else {
                continue;
            };
            let (_, pages, quota) = select(block);
            // A huge page is not torn.
            let (most, count) = if block.is_huge {
                (BLOCK_PAGES, HUGE_PAGE_COUNT)
            } else {
                (quota.min(left), pages.len().min(quota))
            };
            chosen.push((id, most));
            taken.insert(id);
            left = left.saturating_sub(count);
        }
        chosen.sort_unstable();
        for (id, most) in chosen {
            if let Some(block) = self.blocks.get(&id) {
                let (_, pages, _) = select(block);
                let others = block.present.without(&pages);
                for run in pages.runs(most, &others, WIDEST_GAP) {
                    push(moves, id, run, Side::Device);
                }
            }
        }
        left
    }

    /// Moves that bring back what the program is fetching page by page.
    pub(super) fn relief(&mut self, now: Duration) -> Vec<Move> {
        self.shrink();
        self.shrink();
        let mut blocks: Vec<(u32, BlockId)> = (self.blocks.iter())
            .filter(|(_, block)| block.returned > 0 && !block.away.is_empty())
            .filter(|(_, block)| block.is_mostly_in_use())
            .map(|(id, block)| (block.returned, *id))
            .collect();
        blocks.sort_unstable_by(|a, b| b.cmp(a));
        blocks.truncate(RELIEF_BLOCKS);
        // Neighbours are moved in one call.
        blocks.sort_unstable_by_key(|(_, id)| *id);
        let mut moves = Vec::new();
        for (_, id) in blocks {
            if let Some(block) = self.blocks.get_mut(&id) {
                block.back_off(now);
                for run in block.away.runs(BLOCK_PAGES, &PageSet::default(), 1) {
                    push(&mut moves, id, run, Side::System);
                }
            }
        }
        moves
    }

    /// Less at once: the credit is spent.
    pub(super) fn shrink(&mut self) {
        self.window = (self.window / 2).max(SMALLEST_WINDOW);
    }

    /// A move is done: `pages` of it moved.
    pub(super) fn moved(&mut self, done: &Move, pages: u64, now: Duration) {
        self.moves += 1;
        let mut address = done.range.start / BLOCK_BYTES * BLOCK_BYTES;
        while address < done.range.end {
            let id = BlockId {
                pid: done.pid,
                address,
            };
            if let Some(block) = self.blocks.get_mut(&id) {
                let index =
                    |at: u64| (at.clamp(address, address + BLOCK_BYTES) - address) / PAGE_BYTES;
                let mut set = PageSet::default();
                set.add(index(done.range.start) as u32..index(done.range.end) as u32);
                match done.to {
                    // Pages that did not move look like those that came back, and so they are left
                    // out later. If none moved, the whole block waits.
                    Side::Device if pages == 0 => {
                        block.back_off(now);
                        block.moved = self.moves;
                    }
                    Side::Device => block.leave(&set, now, self.moves),
                    Side::System => block.come_back(&set, self.moves),
                }
            }
            address += BLOCK_BYTES;
        }
    }
}

/// Adds a run of pages of a block, to the last move if they are adjacent.
fn push(moves: &mut Vec<Move>, id: BlockId, run: Range<u32>, to: Side) {
    let at = |page: u32| id.address + u64::from(page) * PAGE_BYTES;
    let range = at(run.start)..at(run.end);
    if let Some(last) = moves.last_mut()
        && (last.pid, last.range.end, last.to) == (id.pid, range.start, to)
        && range.end - last.range.start <= MOVE_BYTES
    {
        last.range.end = range.end;
        return;
    }
    moves.push(Move {
        pid: id.pid,
        range,
        to,
    });
}
