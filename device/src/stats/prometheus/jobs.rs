// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The counters of jobs.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::series::{buckets, count};
use crate::jobs::JobsSnapshot;

/// Writes the counters.
pub(super) fn encode(jobs: &JobsSnapshot, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for (name, help, value) in [
        (
            "jobs_present",
            "Jobs whose end is not reported yet",
            jobs.present,
        ),
        (
            "reports_waiting",
            "Reports that wait for a buffer",
            jobs.waiting_reports,
        ),
        (
            "faults_open",
            "Page faults that wait for an answer",
            jobs.open_faults,
        ),
    ] {
        to.encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&value)?;
    }
    for (name, help, value) in [
        ("faults", "Page faults", jobs.faults),
        ("reports", "Reports delivered", jobs.reports),
    ] {
        to.encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    let help = "Page faults by what became of them";
    let mut family = to.encode_descriptor("fault_answers", help, None, MetricType::Counter)?;
    for (answer, value) in [
        ("resume", jobs.resumed),
        ("fail", jobs.failed),
        ("none", jobs.timed_out),
    ] {
        count(&mut family, &[("answer", answer)], value)?;
    }
    for (name, label, help, values) in [
        ("jobs_accepted", "kind", "Jobs accepted", &jobs.accepted),
        (
            "jobs_amount",
            "kind",
            "Bytes, words, nodes, pages or instructions of ended jobs",
            &jobs.amounts,
        ),
        ("jobs_ended", "status", "Jobs by how they ended", &jobs.ends),
    ] {
        let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (key, value) in values {
            count(&mut family, &[(label, *key)], *value)?;
        }
    }
    for (name, help, times) in [
        (
            "job_seconds",
            "Time from the acceptance of a job to its end, measured",
            &jobs.run,
        ),
        (
            "fault_seconds",
            "Time from the report of a page fault to its answer, measured",
            &jobs.answer,
        ),
    ] {
        to.encode_descriptor(name, help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(
                times.sum_ns as f64 / 1e9,
                times.count,
                &buckets(times),
                None,
            )?;
    }
    Ok(())
}
