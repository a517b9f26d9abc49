// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long a worker looks for the next batch before it sleeps.
//!
//! Waking a thread costs as much as copying fifty pages. But a look that finds nothing takes a processor from a guest,
//! so the time to look adapts to how long the worker was idle before each batch: if the longest look would have caught
//! the batch, the next look is long enough for one like it, and otherwise it is half as long. A worker that sleeps sees
//! each batch late, and so would find reason to sleep for ever: now and then it takes the longest look all the same. If
//! another thread takes the processor during a look, the worker does not look for a time that doubles whenever it happens
//! again. It shows as a gap between two looks, which costs no system call.

use std::time::{Duration, Instant};

/// The shortest time that is worth a look.
const SHORTEST: Duration = Duration::from_micros(4);
/// One look in so many is as long as can be if shorter ones are all in vain.
const TRIAL: u32 = 8;
/// How long a worker does not poll after another thread took its processor: at first, and at most.
const STEP_BACK: Duration = Duration::from_millis(1);
const LONGEST_STEP_BACK: Duration = Duration::from_millis(100);

/// How long one queue's worker looks.
#[derive(Debug)]
pub(super) struct PollWindow {
    longest: Duration,
    now: Duration,
    /// Looks since the longest would have caught a batch, or was tried.
    since_trial: u32,
    idle_since: Option<Instant>,
    step_back: Duration,
    not_before: Option<Instant>,
}

impl PollWindow {
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest,
            now: longest,
            since_trial: 0,
            idle_since: None,
            step_back: STEP_BACK,
            not_before: None,
        }
    }

    /// There is nothing to do any more.
    pub(super) fn idle(&mut self, at: Instant) {
        self.idle_since = Some(at);
    }

    /// There is something to do again, after a look or a sleep.
    pub(super) fn busy(&mut self, at: Instant) {
        let Some(since) = self.idle_since.take() else {
            return;
        };
        let idle = at.saturating_duration_since(since);
        if idle <= self.longest {
            self.since_trial = 0;
            self.now = self.now.max(idle * 2).max(SHORTEST).min(self.longest);
        } else {
            self.now /= 2;
            if self.now < SHORTEST {
                self.now = Duration::ZERO;
            }
        }
    }

    /// Another thread took this processor during a look.
    pub(super) fn disturbed(&mut self, at: Instant) {
        self.not_before = Some(at + self.step_back);
        self.step_back = (self.step_back * 2).min(LONGEST_STEP_BACK);
    }

    /// A look found a batch.
    pub(super) fn found(&mut self) {
        self.step_back = STEP_BACK;
    }

    /// How long to look now.
    pub(super) fn window(&mut self, at: Instant) -> Duration {
        match self.not_before {
            Some(until) if at < until => Duration::ZERO,
            _ => {
                self.not_before = None;
                self.since_trial += 1;
                if self.since_trial >= TRIAL {
                    self.since_trial = 0;
                    self.longest
                } else {
                    self.now
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Instant, LONGEST_STEP_BACK, PollWindow, SHORTEST, STEP_BACK, TRIAL};

    const LONGEST: Duration = Duration::from_micros(64);

    /// The window after the worker was idle for so many microseconds, now and before.
    fn after(window: &mut PollWindow, idle: u64) -> Duration {
        let now = Instant::now();
        window.idle(now);
        window.busy(now + Duration::from_micros(idle));
        window.window(now)
    }

    #[test]
    fn the_window_follows_what_comes() {
        let mut window = PollWindow::new(LONGEST);
        for expected in [32, 16, 8, 4, 0, 0] {
            assert_eq!(after(&mut window, 65), Duration::from_micros(expected));
        }
        for (idle, expected) in [(1, 4), (5, 10), (3, 10), (20, 40), (60, 64), (64, 64)] {
            assert_eq!(after(&mut window, idle), Duration::from_micros(expected));
        }
    }

    #[test]
    fn sleeping_does_not_justify_itself() {
        let mut window = PollWindow::new(LONGEST);
        let mut asleep = |at_most| {
            let mut looks = (0..at_most).map(|_| after(&mut window, 100));
            looks.position(|look| look == LONGEST)
        };
        assert!(asleep(16).is_some());
        assert!(asleep(TRIAL).is_some(), "the worker polls no more");
        assert!(asleep(TRIAL - 1).is_none(), "the worker polls too often");
    }

    #[test]
    fn others_are_left_alone_for_longer_each_time() {
        let mut window = PollWindow::new(LONGEST);
        let now = Instant::now();
        let mut expected = STEP_BACK;
        for _ in 0..10 {
            window.disturbed(now);
            assert_eq!(window.window(now + expected / 2), Duration::ZERO);
            assert_eq!(window.window(now + expected), LONGEST);
            expected = (expected * 2).min(LONGEST_STEP_BACK);
        }
        assert_eq!(expected, LONGEST_STEP_BACK);
        window.found();
        window.disturbed(now);
        assert_eq!(window.window(now + STEP_BACK), LONGEST);
    }

    #[test]
    fn zero_is_never() {
        let mut window = PollWindow::new(Duration::ZERO);
        assert_eq!(after(&mut window, 0), Duration::ZERO);
        assert_eq!(after(&mut window, 1), Duration::ZERO);
        assert!(SHORTEST > Duration::ZERO);
    }
}
