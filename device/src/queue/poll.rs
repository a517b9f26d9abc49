// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Looking for the next batch for a while before a worker sleeps.
//!
//! Waking a thread costs as much as copying fifty pages. But a look that finds nothing takes a processor from a guest,
//! so the time to look adapts: it doubles when a batch came soon after the worker went to sleep, and halves when the
//! worker looked for nothing. While others want this processor it is zero.

use std::time::{Duration, Instant};

use vhost_user_backend::VringT;
use virtio_queue::QueueT;

use crate::{device::Device, ring::Ring};

/// The shortest time that is worth a look.
const SHORTEST: Duration = Duration::from_micros(4);
/// How long nothing is looked for after somebody else wanted this processor.
const STEP_BACK: Duration = Duration::from_millis(100);

/// How long one queue's worker looks.
#[derive(Debug)]
pub(super) struct PollWindow {
    longest: Duration,
    now: Duration,
    asleep_since: Option<Instant>,
    not_before: Option<Instant>,
}

impl PollWindow {
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest,
            now: longest,
            asleep_since: None,
            not_before: None,
        }
    }

    /// The worker was woken because there is work.
    pub(super) fn woken(&mut self) {
        if let Some(since) = self.asleep_since.take()
            && since.elapsed() <= self.longest
        {
            self.now = (self.now * 2).clamp(SHORTEST, self.longest.max(SHORTEST));
        }
    }

    /// The worker looked for nothing.
    fn missed(&mut self) {
        self.now /= 2;
        if self.now < SHORTEST {
            self.now = Duration::ZERO;
        }
    }

    fn window(&mut self) -> Duration {
        match self.not_before {
            Some(until) if Instant::now() < until => Duration::ZERO,
            _ => {
                self.not_before = None;
                self.now.min(self.longest)
            }
        }
    }
}

impl Device {
    /// Looks for the next chain of queue `index`. Returns whether there is one.
    pub(super) fn poll(&self, index: u16, ring: &Ring, window: &mut PollWindow) -> bool {
        let time = window.window();
        let stats = self.stats().queue(index);
        if !time.is_zero() {
            let others = involuntary_switches();
            let until = Instant::now() + time;
            loop {
                match self.has_chain(ring) {
                    Some(true) => {
                        stats.polls_hit.add(1);
                        return true;
                    }
                    Some(false) if Instant::now() < until => {
                        for _ in 0..16 {
                            std::hint::spin_loop();
                        }
                    }
                    _ => break,
                }
            }
            stats.polls_missed.add(1);
            window.missed();
            if involuntary_switches() != others {
                window.not_before = Some(Instant::now() + STEP_BACK);
            }
        }
        window.asleep_since = Some(Instant::now());
        false
    }

    /// Whether a ring has a chain; nothing if it is of no use to look on.
    fn has_chain(&self, ring: &Ring) -> Option<bool> {
        if self.gate().is_wanted() {
            return None;
        }
        let guest = self.gate().enter();
        let state = ring.get_ref();
        let queue = state.get_queue();
        if !state.is_enabled() || !queue.ready() {
            return None;
        }
        let available = queue
            .avail_idx(guest.mappings(), std::sync::atomic::Ordering::Acquire)
            .ok()?;
        Some(available.0 != queue.next_avail())
    }
}

/// How often this thread had to give its processor to another.
fn involuntary_switches() -> libc::c_long {
    // SAFETY: the structure is plain numbers, for which all zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable and as large as the call wants it.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    usage.ru_nivcsw
}

#[cfg(test)]
mod tests {
    use super::{Duration, Instant, PollWindow, SHORTEST};

    #[test]
    fn the_window_follows_what_it_finds() {
        let longest = Duration::from_micros(64);
        let mut window = PollWindow::new(longest);
        for expected in [32, 16, 8, 4, 0, 0] {
            window.missed();
            assert_eq!(window.window(), Duration::from_micros(expected));
        }
        for expected in [4, 8, 16, 32, 64, 64] {
            window.asleep_since = Some(Instant::now());
            window.woken();
            assert_eq!(window.window(), Duration::from_micros(expected));
        }
        window.asleep_since = Instant::now().checked_sub(Duration::from_secs(1));
        window.missed();
        window.woken();
        assert_eq!(window.window(), longest / 2, "a late batch changes nothing");
        window.not_before = Some(Instant::now() + Duration::from_secs(60));
        assert_eq!(window.window(), Duration::ZERO);
    }

    #[test]
    fn zero_is_never() {
        let mut window = PollWindow::new(Duration::ZERO);
        window.asleep_since = Some(Instant::now());
        window.woken();
        assert_eq!(window.window(), Duration::ZERO);
        assert!(SHORTEST > Duration::ZERO);
    }
}
