// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A histogram of times with buckets that double, which one thread at a time adds to.

use std::time::Duration;

use serde::Serialize;

use super::counter::WorkerCounter;

/// Bucket `n` counts times below 2^(n + SHIFT) nanoseconds; the last one all others.
const BUCKETS: usize = 24;
/// The first bucket ends at 256 ns; the last but one at 2^30 ns, about a second.
const SHIFT: u32 = 8;

/// The histogram.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [WorkerCounter; BUCKETS],
    sum_ns: WorkerCounter,
}

/// A histogram at some time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HistogramSnapshot {
    /// How many.
    pub count: u64,
    /// Their sum, nanoseconds.
    pub sum_ns: u64,
    /// Upper bounds of quantiles, nanoseconds: no more than twice the true value. Absent without any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ns: Option<u64>,
    /// See `p50_ns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ns: Option<u64>,
    /// Buckets that are not empty: upper bound in nanoseconds (absent for the last), and count.
    pub buckets: Vec<(Option<u64>, u64)>,
}

impl Histogram {
    /// Adds a time.
    pub fn record(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bits = u64::BITS - ns.leading_zeros();
        let bucket = (bits.saturating_sub(SHIFT) as usize).min(BUCKETS - 1);
        self.buckets[bucket].add(1);
        self.sum_ns.add(ns);
    }

    /// The histogram now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let counts: Vec<u64> = self.buckets.iter().map(WorkerCounter::get).collect();
        let count: u64 = counts.iter().sum();
        let quantile = |permille: u64| {
            let wanted = (count * permille).div_ceil(1000);
            let mut below = 0;
            counts
                .iter()
                .position(|bucket| {
                    below += bucket;
                    below >= wanted
                })
                .filter(|_| count > 0)
                .map(|bucket| bound(bucket).unwrap_or(u64::MAX))
        };
        HistogramSnapshot {
            count,
            sum_ns: self.sum_ns.get(),
            p50_ns: quantile(500),
            p99_ns: quantile(990),
            buckets: counts
                .iter()
                .enumerate()
                .filter(|(_, count)| **count > 0)
                .map(|(bucket, count)| (bound(bucket), *count))
                .collect(),
        }
    }

    pub(super) fn reset(&self) {
        for bucket in &self.buckets {
            bucket.reset();
        }
        self.sum_ns.reset();
    }
}

/// The exclusive upper bound of a bucket, nanoseconds.
fn bound(bucket: usize) -> Option<u64> {
    (bucket < BUCKETS - 1).then(|| 1 << (bucket as u32 + SHIFT))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Histogram;

    #[test]
    fn times_fall_below_the_bound_of_their_bucket() {
        let histogram = Histogram::default();
        for ns in [0, 255, 256, 1000, 1_000_000, u64::MAX] {
            histogram.record(Duration::from_nanos(ns));
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.count, 6);
        assert_eq!(
            snapshot.buckets,
            [
                (Some(256), 2),
                (Some(512), 1),
                (Some(1024), 1),
                (Some(1 << 20), 1),
                (None, 1)
            ]
        );
        assert_eq!(snapshot.p50_ns, Some(512));
        histogram.reset();
        assert_eq!(histogram.snapshot().count, 0);
        assert_eq!(histogram.snapshot().p99_ns, None);
    }
}
