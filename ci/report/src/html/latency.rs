// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long things took, as shares of them that took no longer.

use crate::clock::Span;
use crate::recording::Recording;
use serde::Serialize;
use std::collections::BTreeMap;

/// The distribution of one latency.
#[derive(Serialize)]
pub(super) struct Latency {
    name: &'static str,
    count: usize,
    /// Points of the curve: so many nanoseconds …
    ns: Vec<u64>,
    /// … and the share that took no longer, percent.
    percent: Vec<f64>,
    p50: u64,
    p90: u64,
    p99: u64,
    max: u64,
}

/// A curve has no more points: a screen has no more pixels.
const POINTS: usize = 500;

impl Latency {
    /// The distribution of these times, nanoseconds.
    fn new(name: &'static str, mut all: Vec<u64>) -> Self {
        // The curve's axis is logarithmic and has no zero.
        for ns in &mut all {
            *ns = (*ns).max(1);
        }
        all.sort_unstable();
        let points = all.len().min(POINTS);
        let mut curve: Vec<(u64, f64)> = Vec::with_capacity(points);
        for point in 1..=points {
            // The last is the greatest, and none is before the first.
            let rank = (point * all.len()).div_ceil(points);
            let (ns, percent) = (all[rank - 1], rank as f64 * 100.0 / all.len() as f64);
            match curve.last_mut() {
                // The same time twice is one point.
                Some(last) if last.0 == ns => last.1 = percent,
                _ => curve.push((ns, percent)),
            }
        }
        Self {
            name,
            count: all.len(),
            p50: quantile(&all, 50),
            p90: quantile(&all, 90),
            p99: quantile(&all, 99),
            max: all.last().copied().unwrap_or(0),
            ns: curve.iter().map(|point| point.0).collect(),
            percent: curve.iter().map(|point| point.1).collect(),
        }
    }
}

/// The least time that so many percent did not exceed; 0 of none.
fn quantile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    (sorted.get(rank.saturating_sub(1)).copied()).unwrap_or(0)
}

/// All latencies of a recording.
pub(super) fn all(
    recording: &Recording,
    on_device: &BTreeMap<u64, Span>,
    is_same_run: bool,
) -> Vec<Latency> {
    let of_events = |name: &str, field: &str| {
        let events = recording.events.iter().filter(|event| event.name == name);
        events.filter_map(|event| event.number(field)).collect()
    };
    let executed = (recording.events.iter())
        .filter(|event| event.name == "batch_done" && is_same_run)
        .filter_map(|event| on_device.get(&event.number("cookie")?))
        // As an integer, a float saturates.
        .map(|span| ((span.end - span.start) * 1e3) as u64)
        .collect();
    vec![
        Latency::new("CPU faults", of_events("fault", "ns")),
        Latency::new(
            "batches, as the driver sees them",
            of_events("batch_done", "ns"),
        ),
        Latency::new("batches, on the device", executed),
        Latency::new("device faults", of_events("device_fault", "ns")),
        Latency::new("invalidations", of_events("invalidate", "ns")),
        Latency::new("jobs, on the device", of_events("job_end", "device_ns")),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Latency, POINTS};

    #[test]
    fn curves_end_at_the_greatest_and_are_bounded() {
        let latency = Latency::new("x", (0..10_000).rev().collect());
        assert!(latency.ns.len() <= POINTS && latency.ns.len() == latency.percent.len());
        assert_eq!(latency.ns.last(), Some(&9999));
        assert_eq!(latency.percent.last(), Some(&100.0));
        assert_eq!((latency.p50, latency.p99, latency.max), (4999, 9899, 9999));
        assert!(latency.ns.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(latency.ns[0], 19);
    }

    #[test]
    fn few_times_and_none_have_curves() {
        let latency = Latency::new("x", vec![7, 7, 9]);
        assert_eq!(latency.ns, [7, 9]);
        assert_eq!(latency.percent, [200.0 / 3.0, 100.0]);
        let latency = Latency::new("x", Vec::new());
        assert_eq!((latency.count, latency.p50, latency.max), (0, 0, 0));
    }
}
