// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! When a fault fires.

/// Which of the batches or entries in scope.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum When {
    /// All.
    Always,
    /// The n-th, counted from 1.
    Nth(u64),
    /// Every n-th.
    Every(u64),
    /// Each with this probability.
    Fraction(f64),
}

/// The rule with its counts and its source of chance.
#[derive(Debug)]
pub(super) struct Trigger {
    when: When,
    limit: u64,
    seen: u64,
    fired: u64,
    random: u64,
}

impl Trigger {
    /// A trigger that fires at most `limit` times. The same `seed` gives the same decisions.
    pub(super) fn new(when: When, limit: u64, seed: u64) -> Self {
        Self {
            when,
            limit,
            seen: 0,
            fired: 0,
            random: seed,
        }
    }

    /// Counts one in scope and decides.
    pub(super) fn fires(&mut self) -> bool {
        self.seen += 1;
        let hit = match self.when {
            When::Always => true,
            When::Nth(nth) => self.seen == nth,
            When::Every(every) => self.seen.is_multiple_of(every),
            When::Fraction(fraction) => self.chance() < fraction,
        };
        let fires = hit && self.fired < self.limit;
        self.fired += u64::from(fires);
        fires
    }

    /// How many were in scope.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// How many it hit.
    pub(super) fn fired(&self) -> u64 {
        self.fired
    }

    /// A number in [0, 1): the splitmix64 sequence of the seed.
    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::{Trigger, When};

    fn hits(when: When, limit: u64, seed: u64) -> Vec<usize> {
        let mut trigger = Trigger::new(when, limit, seed);
        (1..=1000).filter(|_| trigger.fires()).collect()
    }

    #[test]
    fn counting_triggers_hit_what_they_name() {
        assert_eq!(hits(When::Nth(3), u64::MAX, 0), [3]);
        assert_eq!(hits(When::Every(250), u64::MAX, 0), [250, 500, 750, 1000]);
        assert_eq!(hits(When::Every(100), 2, 0), [100, 200]);
        assert_eq!(hits(When::Always, 3, 0), [1, 2, 3]);
    }

    #[test]
    fn chance_follows_its_seed() {
        let first = hits(When::Fraction(0.1), u64::MAX, 42);
        assert_eq!(first, hits(When::Fraction(0.1), u64::MAX, 42));
        assert_ne!(first, hits(When::Fraction(0.1), u64::MAX, 43));
        assert!((50..200).contains(&first.len()), "{} of 1000", first.len());
        assert!(hits(When::Fraction(0.0), u64::MAX, 1).is_empty());
        assert_eq!(hits(When::Fraction(1.0), u64::MAX, 1).len(), 1000);
    }
}
