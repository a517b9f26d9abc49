// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Waits on purpose: for modelled links and delays that faults ask for.

use std::time::{Duration, Instant};

use super::Job;

/// Waits for `time`, or until another thread waits for this worker.
pub(super) fn wait(time: Duration, job: &Job<'_>) {
    wait_until(Instant::now() + time, job);
}

/// Waits until `until`, or until another thread waits for this worker. A thread sleeps too long rather than too short, so the last
/// of it is spent awake.
pub(super) fn wait_until(until: Instant, job: &Job<'_>) {
    const AWAKE: Duration = Duration::from_micros(60);
    while !job.pace.is_wanted() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        match left.checked_sub(AWAKE) {
            Some(asleep) if !asleep.is_zero() => {
                std::thread::sleep(asleep.min(Duration::from_millis(1)));
            }
            _ => std::thread::yield_now(),
        }
    }
}
