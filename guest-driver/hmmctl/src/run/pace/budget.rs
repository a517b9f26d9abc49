// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Time that moving memory may cost the program.

use std::time::Duration;

/// An account of time. It earns a share of the time that the program gets on and pays for the time
/// that the program is stalled, so that over any long time stalls take at most that share.
#[derive(Debug)]
pub(super) struct Budget {
    share: f64,
    /// Seconds; below zero while more was spent than earned.
    credit: f64,
    /// Share of the time that was stalled of late.
    recent: f64,
}

/// Time for which an idle account can save up.
const SAVINGS: f64 = 1.0;
/// Time over which [`Budget::recent`] looks back, seconds.
const MEMORY: f64 = 0.05;

impl Budget {
    pub(super) fn new(share: f64) -> Self {
        Self {
            share,
            credit: share * SAVINGS / 2.0,
            recent: 0.0,
        }
    }

    /// The program got on for `progress` and was stalled for `stall`.
    pub(super) fn pass(&mut self, progress: Duration, stall: Duration) {
        let (progress, stall) = (progress.as_secs_f64(), stall.as_secs_f64());
        self.credit = (self.credit + self.share * progress).min(self.most()) - stall;
        let time = progress + stall;
        if time > 0.0 {
            let weight = (time / MEMORY).min(1.0);
            self.recent += weight * (stall / time - self.recent);
        }
    }

    /// Pays for something else than a stall.
    pub(super) fn spend(&mut self, cost: Duration) {
        self.credit -= cost.as_secs_f64();
    }

    /// Whether nothing more may be moved to the device for now.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.credit < 0.0
    }

    /// Whether more could be moved than is.
    pub(super) fn is_ample(&self) -> bool {
        self.credit > self.most() / 4.0
    }

    /// Whether the program was hardly stalled of late.
    pub(super) fn is_calm(&self) -> bool {
        self.recent < self.share / 4.0
    }

    /// Whether stalls go on although they are paid for no more.
    pub(super) fn is_exceeded(&self) -> bool {
        self.credit < -self.most() / 2.0 && self.recent > (2.0 * self.share).min(0.5)
    }

    fn most(&self) -> f64 {
        self.share * SAVINGS
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn stalls_within_the_share_never_overdraw_it() {
        let mut budget = Budget::new(0.1);
        for _ in 0..100 {
            budget.pass(SECOND / 10, SECOND / 100);
            assert!(!budget.is_overdrawn());
        }
        budget.pass(Duration::ZERO, SECOND / 5);
        assert!(budget.is_overdrawn() && budget.is_exceeded() && !budget.is_calm());
        budget.pass(SECOND, Duration::ZERO);
        assert!(budget.is_calm());
    }

    #[test]
    fn a_debt_is_paid_off_by_running() {
        let mut budget = Budget::new(0.1);
        budget.pass(Duration::ZERO, SECOND);
        assert!(budget.is_exceeded());
        budget.pass(9 * SECOND, Duration::ZERO);
        assert!(budget.is_overdrawn() && !budget.is_exceeded());
        budget.pass(2 * SECOND, Duration::ZERO);
        assert!(!budget.is_overdrawn());
    }

    #[test]
    fn a_long_rest_saves_for_a_second_only() {
        let mut budget = Budget::new(0.1);
        budget.pass(1000 * SECOND, Duration::ZERO);
        assert!(budget.is_ample());
        budget.spend(SECOND / 10 + SECOND / 100);
        assert!(budget.is_overdrawn());
    }
}
