// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kicks that bring nothing.
//!
//! A kick descriptor that stays readable (an eventfd with semaphore semantics and a large count, a timer, a performance
//! counter) wakes its worker again as soon as it sleeps. A driver's kicks come with chains; a few come without.

use std::time::{Duration, Instant};

/// More kicks than this in a `PERIOD` during which no chain was taken come from no driver: a ring has fewer chains.
pub(super) const MAX_IDLE_KICKS: u32 = 2048;
const PERIOD: Duration = Duration::from_secs(1);

/// The kicks of one descriptor since a chain was taken.
#[derive(Debug, Default)]
pub(super) struct IdleKicks {
    count: u32,
    since: Option<Instant>,
    position: u16,
}

impl IdleKicks {
    /// Notes a kick `now`, when `position` is the ring's next chain. Returns whether there were too many.
    pub(super) fn note(&mut self, position: u16, now: Instant) -> bool {
        let recent = self
            .since
            .is_some_and(|since| now.saturating_duration_since(since) < PERIOD);
        if !recent || position != self.position {
            *self = Self {
                count: 0,
                since: Some(now),
                position,
            };
        }
        self.count += 1;
        self.count > MAX_IDLE_KICKS
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, IdleKicks, Instant, MAX_IDLE_KICKS, PERIOD};

    #[test]
    fn only_many_kicks_in_a_short_time_without_a_chain_are_too_many() {
        let now = Instant::now();
        let mut kicks = IdleKicks::default();
        let mut many = |position, step: Duration| {
            (0..=MAX_IDLE_KICKS)
                .map(|index| kicks.note(position, now + step * index))
                .filter(|too_many| *too_many)
                .count()
        };
        assert_eq!(many(1, Duration::ZERO), 1);
        assert_eq!(many(2, PERIOD / 2000), 0, "slow");
        let mut kicks = IdleKicks::default();
        let with_chains = (0..=u16::MAX).any(|position| kicks.note(position, now));
        assert!(!with_chains);
    }
}
