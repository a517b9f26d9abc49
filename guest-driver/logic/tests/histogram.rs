// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Histograms against the sorted values.

use hmm_logic::{bucket_end, bucket_of, bucket_start, Histogram, BUCKETS};
use proptest::prelude::*;

/// Values of every magnitude.
fn value() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift)
}

proptest! {
    #[test]
    fn counts_every_value_once(values in prop::collection::vec(value(), 0..300)) {
        let mut histogram = Histogram::new();
        for &value in &values {
            histogram.record(value);
        }
        prop_assert_eq!(histogram.count(), values.len() as u64);
        let sum = values.iter().fold(0u64, |sum, &value| sum.saturating_add(value));
        prop_assert_eq!(histogram.sum(), sum);
        for (start, end, count) in histogram.buckets() {
            let within = values
                .iter()
                .filter(|&&value| value >= start && end.is_none_or(|end| value < end));
            prop_assert_eq!(within.count() as u64, count);
        }
    }

    #[test]
    fn a_quantile_is_bounded_within_a_factor_of_two(
        mut values in prop::collection::vec(0u64..1 << 39, 1..300),
        per_mille in 1u32..=1000,
    ) {
        let mut histogram = Histogram::new();
        for &value in &values {
            histogram.record(value);
        }
        values.sort_unstable();
        let rank = (values.len() * per_mille as usize).div_ceil(1000);
        let exact = values[rank - 1];
        let bound = histogram.quantile_bound(per_mille).unwrap();
        prop_assert!(exact < bound, "{exact} is not below {bound}");
        prop_assert!(bound <= (2 * exact).max(1), "{bound} is far above {exact}");
    }
}

#[test]
fn buckets_follow_one_another_without_a_gap() {
    assert_eq!((bucket_of(0), bucket_start(0)), (0, 0));
    for bucket in 0..BUCKETS {
        assert_eq!(bucket_of(bucket_start(bucket)), bucket);
        match bucket_end(bucket) {
            Some(end) => {
                assert_eq!(bucket_of(end - 1), bucket);
                assert_eq!(bucket_of(end), bucket + 1);
            }
            None => assert_eq!((bucket, bucket_of(u64::MAX)), (BUCKETS - 1, BUCKETS - 1)),
        }
    }
}

#[test]
fn without_values_there_is_no_quantile() {
    assert_eq!(Histogram::new().quantile_bound(500), None);
    assert_eq!(Histogram::default().buckets().count(), 0);
}

#[test]
fn a_kept_histogram_is_the_same() {
    let mut histogram = Histogram::new();
    let mut counts = [0; BUCKETS];
    for value in [0, 1, 5, 5, 1 << 50] {
        histogram.record(value);
        counts[bucket_of(value)] += 1;
    }
    assert_eq!(Histogram::from_parts(counts, 11 + (1 << 50)), histogram);
    // The last bucket has no bound.
    assert_eq!(histogram.quantile_bound(1000), None);
    assert_eq!(histogram.quantile_bound(800), Some(8));
}
