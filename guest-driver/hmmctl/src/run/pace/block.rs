// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is known of one block of addresses: which of its pages rest.
//!
//! A page that came back from the device is *in use*. It is left out of later moves for a time
//! that doubles each time the block has such pages again. New and unsure blocks are tried with a
//! few pages: each trial that stays on the device doubles the number (`quota`), each of which a
//! quarter returns quarters it and doubles the time until the next (`wait`). So memory in use costs a few faults a
//! trial and ever fewer trials, whatever its size, and memory at rest has left after a few looks.

use super::page_set::{BLOCK_PAGES, PageSet};
use std::time::Duration;

/// A block of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::run) struct BlockId {
    /// The process.
    pub(in crate::run) pid: i32,
    /// The address of the block, a multiple of its size.
    pub(in crate::run) address: u64,
}

/// What a look found in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::run) struct Seen {
    /// Which block.
    pub(in crate::run) id: BlockId,
    /// Pages that are in system memory and may be moved.
    pub(in crate::run) present: PageSet,
    /// Pages that are on a device (or swapped out).
    pub(in crate::run) away: PageSet,
    /// Whether it is one huge page, which moves as a whole and comes back by one fault.
    pub(in crate::run) is_huge: bool,
}

/// The first wait after a trial that came back, and the least.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How long pages that came back are left alone at first.
const FIRST_COOLING: Duration = Duration::from_secs(4);
/// The longest of both.
const LONGEST: Duration = Duration::from_secs(600);
/// The smallest trial, pages.
pub(super) const SMALLEST_TRIAL: u32 = 8;

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is too early to tell, or there was none.
    Open,
    /// The pages stayed on the device, or nearly all of them.
    Rests,
    /// More than an eighth came back, but most stayed.
    Mixed,
    /// A quarter or more came back.
    InUse,
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) present: PageSet,
    pub(super) away: PageSet,
    pub(super) is_huge: bool,
    /// Pages that came back when the block was seen last.
    pub(super) returned: u32,
    /// Pages moved since the last verdict.
    trial: PageSet,
    trial_at: Duration,
    in_use: PageSet,
    quota: u32,
    wait: Duration,
    due: Duration,
    cooling: Duration,
    cool_at: Duration,
    /// When it was moved last, as a number that grows with each move.
    pub(super) moved: u64,
    /// Whether the current look has met it.
    pub(super) is_met: bool,
}

impl Block {
    /// A block that nothing is known of.
    pub(super) fn new(seen: &Seen, quota: u32, due: Duration) -> Self {
        Self {
            present: seen.present,
            away: seen.away,
            is_huge: seen.is_huge,
            returned: 0,
            trial: PageSet::default(),
            trial_at: Duration::ZERO,
            in_use: PageSet::default(),
            quota,
            wait: FIRST_WAIT,
            due,
            cooling: FIRST_COOLING,
            cool_at: Duration::ZERO,
            moved: 0,
            is_met: true,
        }
    }

    /// Takes in what a look found, and judges the trial that is under way.
    pub(super) fn see(&mut self, seen: &Seen, now: Duration, probation: Duration) -> Verdict {
        self.is_met = true;
        let returned = self.away.and(&seen.present);
        self.present = seen.present;
        self.away = seen.away;
        self.is_huge = seen.is_huge;
        self.returned = returned.len();
        if now >= self.cool_at && !self.in_use.is_empty() {
            self.in_use = PageSet::default();
            self.cooling = (self.cooling * 2).min(LONGEST);
        }
        if !returned.is_empty() {
            self.in_use = self.in_use.or(&returned);
            self.cool_at = now + self.cooling;
        }
        let (tried, failed) = (self.trial.len(), self.trial.and(&returned).len());
        let verdict = if failed * 4 >= tried.max(1) {
            Verdict::InUse
        } else if tried == 0 || now.saturating_sub(self.trial_at) < probation {
            Verdict::Open
        } else if failed * 8 > tried {
            Verdict::Mixed
        } else {
            Verdict::Rests
        };
        match verdict {
            Verdict::Open => return verdict,
            Verdict::Mixed => {}
            Verdict::Rests => {
                self.quota = (self.quota * 2).min(BLOCK_PAGES);
                self.wait = (self.wait / 2).max(FIRST_WAIT);
            }
            Verdict::InUse => self.back_off(now),
        }
        self.trial = PageSet::default();
        verdict
    }

    /// Leaves the block alone for a while, and for twice as long the next time.
    pub(super) fn back_off(&mut self, now: Duration) {
        self.quota = (self.quota / 4).max(SMALLEST_TRIAL);
        self.due = now + self.wait;
        self.wait = (self.wait * 2).min(LONGEST);
        self.trial = PageSet::default();
    }

    /// Whether more pages are in use than can be had one by one.
    pub(super) fn is_mostly_in_use(&self) -> bool {
        self.in_use.len() * 10 >= self.away.len()
    }

    /// How long the block waits between two trials.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// Pages that are worth a move now, and those that must be left out.
    pub(super) fn candidates(&self, now: Duration) -> (PageSet, u32) {
        if now < self.due {
            return (PageSet::default(), 0);
        }
        let candidates = self.present.without(&self.in_use);
        let quota = if self.is_huge {
            BLOCK_PAGES
        } else {
            self.quota
        };
        (candidates, quota)
    }

    /// Pages were moved to the device.
    pub(super) fn leave(&mut self, pages: &PageSet, now: Duration, number: u64) {
        let left = self.present.and(pages);
        self.present = self.present.without(&left);
        self.away = self.away.or(&left);
        // Nothing is learned from pages that are known to be in use.
        self.trial = self.trial.or(&left.without(&self.in_use));
        self.trial_at = now;
        self.moved = number;
    }

    /// Pages were migrated back to system memory.
    pub(super) fn come_back(&mut self, pages: &PageSet, number: u64) {
        let back = self.away.and(pages);
        self.away = self.away.without(&back);
        self.present = self.present.or(&back);
        self.moved = number;
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, BlockId, Seen, Verdict};
    use crate::run::pace::page_set::{BLOCK_PAGES, PageSet};
    use std::time::Duration;

    const TICK: Duration = Duration::from_millis(100);

    fn pages(range: std::ops::Range<u32>) -> PageSet {
        let mut set = PageSet::default();
        set.add(range);
        set
    }

    fn seen(present: PageSet, away: PageSet) -> Seen {
        Seen {
            id: BlockId { pid: 1, address: 0 },
            present,
            away,
            is_huge: false,
        }
    }

    /// Tries a block each time it is due, all pages of a trial come back at once; the times.
    #[test]
    fn memory_in_use_is_tried_with_few_pages_and_ever_more_seldom() {
        let all = seen(pages(0..BLOCK_PAGES), PageSet::default());
        let mut block = Block::new(&all, 16, Duration::ZERO);
        let mut trials = Vec::new();
        let mut tried = 0;
        for tick in 0..10_000 {
            let now = tick * TICK;
            block.see(&all, now, TICK);
            let (candidates, quota) = block.candidates(now);
            if quota > 0 {
                let first = candidates.runs(quota, &PageSet::default(), 1);
                let mut moved = PageSet::default();
                first.into_iter().for_each(|run| moved.add(run));
                tried += moved.len();
                block.leave(&moved, now, 1);
                trials.push(now);
            }
        }
        let gaps: Vec<Duration> = trials.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(
            gaps.windows(2).all(|pair| pair[1] * 2 > pair[0] * 3),
            "{gaps:?}"
        );
        assert!(trials.len() < 13, "{trials:?}");
        assert!(tried < 150, "{tried} pages");
    }

    #[test]
    fn memory_at_rest_has_left_after_a_few_looks() {
        let mut block = Block::new(&seen(pages(0..BLOCK_PAGES), PageSet::default()), 16, TICK);
        for tick in 1..9 {
            let now = tick * TICK;
            let at_rest = seen(block.present, block.away);
            assert_ne!(block.see(&at_rest, now, TICK), Verdict::InUse);
            let (candidates, quota) = block.candidates(now);
            for run in candidates.runs(quota, &PageSet::default(), 1) {
                block.leave(&pages(run), now, 1);
            }
        }
        assert_eq!(block.away.len(), BLOCK_PAGES);
    }

    #[test]
    fn a_page_that_came_back_stays_out_while_its_neighbours_leave() {
        let mut block = Block::new(&seen(pages(0..64), PageSet::default()), 64, TICK);
        block.leave(&pages(0..64), TICK, 1);
        let back = seen(pages(7..8), pages(0..64).without(&pages(7..8)));
        assert_eq!(block.see(&back, 3 * TICK, TICK), Verdict::Rests);
        assert!(block.candidates(3 * TICK).0.is_empty());
        // After some time it is worth a try again.
        block.see(&back, 60 * TICK, TICK);
        assert_eq!(block.candidates(60 * TICK).0, pages(7..8));
    }
}
