// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long a case took, and how much of that the processors of the guest worked.
//!
//! A case that is slow although the processors are idle waits for something: a pause, a time limit, a device that is slow on purpose.

use std::fmt;
use std::fs;
use std::time::Instant;

/// Runs from the start of a case to its end.
pub(super) struct Stopwatch {
    started: Instant,
    processors: Option<Processors>,
}

/// The time of all processors since the boot, in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Processors {
    idle: u64,
    total: u64,
}

impl Stopwatch {
    /// Starts it.
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            processors: Processors::now(),
        }
    }
}

impl fmt::Display for Stopwatch {
    /// `12.3 s, 45 % busy`, which the host reads. The share is missing where the kernel has counted no tick.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.started.elapsed().as_secs_f64())?;
        let busy = (self.processors.zip(Processors::now())).and_then(|(from, to)| from.busy(to));
        match busy {
            Some(percent) => write!(f, ", {percent} % busy"),
            None => Ok(()),
        }
    }
}

impl Processors {
    fn now() -> Option<Self> {
        Self::of(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// Reads the first line of `/proc/stat`: `cpu` and the ticks spent in user, nice, system, idle, iowait and more states.
    fn of(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = (line.split_ascii_whitespace())
            // What a guest used is part of user and nice already.
            .take(8)
            .map_while(|word| word.parse().ok())
            .collect();
        let idle = ticks.get(3)?.checked_add(*ticks.get(4)?)?;
        let total = (ticks.iter()).try_fold(0, |sum: u64, &part| sum.checked_add(part))?;
        Some(Self { idle, total })
    }

    /// The percentage of the time until `to` that was not idle.
    fn busy(self, to: Self) -> Option<u64> {
        let total = to.total.checked_sub(self.total)?;
        // The kernel's idle counter may step back by a tick.
        let idle = to.idle.saturating_sub(self.idle).min(total);
        ((total - idle) * 100).checked_div(total)
    }
}

#[cfg(test)]
mod tests {
    use super::Processors;

    #[test]
    fn iowait_is_idle_and_guest_time_counts_once() {
        let read = Processors::of("cpu  10 1 20 300 40 2 3 4 99 98\ncpu0 1 1 1 1 1\n");
        let expected = Processors {
            idle: 340,
            total: 380,
        };
        assert_eq!(read, Some(expected));
        for wrong in ["", "cpu0 1 2 3 4 5", "cpu  1 2 3", "cpu  1 2 3 x 5"] {
            assert_eq!(Processors::of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_share_is_of_the_time_in_between() {
        let at = |idle, total| Processors { idle, total };
        assert_eq!(at(100, 200).busy(at(130, 300)), Some(70));
        assert_eq!(at(100, 200).busy(at(99, 300)), Some(100));
        assert_eq!(at(100, 200).busy(at(100, 200)), None);
        assert_eq!(at(100, 200).busy(at(100, 199)), None);
    }
}
