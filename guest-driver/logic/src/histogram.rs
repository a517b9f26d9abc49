// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Histograms with a bucket for each power of two.

/// Number of buckets.
///
/// The first counts zeros. Each other one begins at a power of two, from 1 on, and the last has no
/// upper bound: it begins at 2^39, which is nine minutes in nanoseconds.
pub const BUCKETS: usize = 41;

/// The bucket that counts `value`.
pub const fn bucket_of(value: u64) -> usize {
    // CAST: The number of bits is at most 64.
    let bits = (u64::BITS - value.leading_zeros()) as usize;
    if bits < BUCKETS {
        bits
    } else {
        BUCKETS - 1
    }
}

/// The least value of a bucket.
pub const fn bucket_start(bucket: usize) -> u64 {
    match bucket {
        0 => 0,
        1..=64 => 1 << (bucket - 1),
        _ => u64::MAX,
    }
}

/// The least value that is too large for a bucket; `None` for the last bucket.
pub const fn bucket_end(bucket: usize) -> Option<u64> {
    if bucket + 1 < BUCKETS {
        Some(bucket_start(bucket + 1))
    } else {
        None
    }
}

/// A histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum: u64,
}

impl Histogram {
    /// An empty histogram.
    pub const fn new() -> Self {
        Self::from_parts([0; BUCKETS], 0)
    }

    /// A histogram that was kept elsewhere: how many values each bucket has, and the sum of all.
    pub const fn from_parts(counts: [u64; BUCKETS], sum: u64) -> Self {
        Self { counts, sum }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(bucket_of(value)) {
            *count = count.saturating_add(1);
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum: u64, &count| sum.saturating_add(count))
    }

    /// The sum of all values.
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// A bound that at least `per_mille` thousandths of the values (1000 at most) are below; no
    /// more than twice the value that it bounds. `None` if there are no values, or the value is in
    /// the last bucket.
    pub fn quantile_bound(&self, per_mille: u32) -> Option<u64> {
        // In two parts, for the product may have more than 64 bits.
        let (count, per_mille) = (self.count(), u64::from(per_mille.min(1000)));
        let wanted = count / 1000 * per_mille + (count % 1000 * per_mille).div_ceil(1000);
        let mut seen = 0u64;
        for (bucket, &count) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(count);
            if seen >= wanted.max(1) {
                return bucket_end(bucket);
            }
        }
        None
    }

    /// The buckets that have values: the least value, the bound, and how many.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, Option<u64>, u64)> + '_ {
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, &count)| count > 0)
            .map(|(bucket, &count)| (bucket_start(bucket), bucket_end(bucket), count))
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}
