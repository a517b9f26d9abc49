// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How fast counters grow.

use super::sample::Sample;
use std::collections::BTreeMap;

/// What happened between two samples, by name and a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Seconds between the samples; 0 if nothing can be said.
    pub(crate) seconds: f64,
    /// Counters.
    pub(crate) counters: BTreeMap<String, f64>,
    /// Skipped pages.
    pub(crate) skipped: BTreeMap<String, f64>,
}

impl Rates {
    /// The rates from one sample to a later one. A counter that fell was begun anew with another device, and what it
    /// counted since is not known: its rate is 0.
    pub(crate) fn between(first: &Sample, last: &Sample) -> Self {
        let seconds = (last.seconds - first.seconds).max(0.0);
        let growth = |before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>| {
            (after.iter())
                .map(|(name, &count)| {
                    let before = before.get(name).copied().unwrap_or(0);
                    let more = count.saturating_sub(before) as f64;
                    let rate = if seconds > 0.0 { more / seconds } else { 0.0 };
                    (name.clone(), rate)
                })
                .collect()
        };
        Self {
            seconds,
            counters: growth(&first.counters, &last.counters),
            skipped: growth(&first.skipped, &last.skipped),
        }
    }

    /// The rate of a counter; 0 if it is not known.
    pub(crate) fn counter(&self, name: &str) -> f64 {
        self.counters.get(name).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Rates, Sample};

    fn sample(seconds: f64, faults: u64) -> Sample {
        Sample {
            seconds,
            counters: [("cpu_faults".to_owned(), faults)].into(),
            skipped: [("hole".to_owned(), 2 * faults)].into(),
            ..Sample::default()
        }
    }

    #[test]
    fn rates_are_differences_a_second() {
        let rates = Rates::between(&sample(1.0, 10), &sample(3.0, 30));
        assert_eq!(rates.counter("cpu_faults"), 10.0);
        assert_eq!(rates.skipped["hole"], 20.0);
        assert_eq!(rates.counter("unknown"), 0.0);
    }

    #[test]
    fn no_time_and_counters_that_fell_have_no_rate() {
        let rates = Rates::between(&sample(1.0, 10), &sample(1.0, 30));
        assert_eq!(rates.counter("cpu_faults"), 0.0);
        let rates = Rates::between(&sample(1.0, 10), &sample(2.0, 3));
        assert_eq!(rates.counter("cpu_faults"), 0.0);
    }
}
