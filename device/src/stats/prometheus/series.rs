// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Single series of a family.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, MetricEncoder, NoLabelSet};

use crate::stats::HistogramSnapshot;

/// Adds a series of a family with these labels.
pub(super) fn count(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    value: u64,
) -> fmt::Result {
    family
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, _, u64>(&value, None)
}

/// Upper bounds in seconds, and counts. Times beyond all bounds are in the histogram's count alone.
pub(super) fn buckets(times: &HistogramSnapshot) -> Vec<(f64, u64)> {
    (times.buckets.iter())
        .filter_map(|(bound, count)| Some(((*bound)? as f64 / 1e9, *count)))
        .collect()
}
