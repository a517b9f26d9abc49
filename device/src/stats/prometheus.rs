// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The counters in Prometheus' text format, version 0.0.4. Every number is measured, but for service times behind a modelled
//! link, which say so.

mod jobs;
mod series;

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, prometheus_text},
    metrics::MetricType,
    registry::Registry,
};

use self::series::{buckets, count};
use super::{HistogramSnapshot, QueueSnapshot, Snapshot};

/// A name, its meaning, and where the number comes from.
type Simple = (&'static str, &'static str, fn(&QueueSnapshot) -> u64);

const BY_QUEUE: [Simple; 9] = [
    ("kicks", "Kicks received", |queue| queue.kicks),
    ("signals_sent", "Signals sent", |queue| queue.signals_sent),
    (
        "signals_suppressed",
        "Sets of completions without a signal",
        |queue| queue.signals_suppressed,
    ),
    ("polls_hit", "Looks that found a batch", |queue| {
        queue.polls_hit
    }),
    ("polls_missed", "Looks in vain", |queue| queue.polls_missed),
    ("malformed_chains", "Chains that made no sense", |queue| {
        queue.malformed_chains
    }),
    ("without_record", "Chains without room", |queue| {
        queue.without_record
    }),
    ("broken", "Times that the queue broke", |queue| queue.broken),
    ("events", "Events told", |queue| queue.events),
];

/// The text.
///
/// # Errors
/// A number cannot be written, which no number is known to cause.
pub fn text(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("hmm");
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Snapshot {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_memory(&mut to)?;
        self.encode_device(&mut to)?;
        self.encode_contexts(&mut to)?;
        for (name, help, value) in BY_QUEUE {
            let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (queue, counters) in &self.queues {
                count(&mut family, &[("queue", queue.as_str())], value(counters))?;
            }
        }
        self.encode_results(&mut to)?;
        self.encode_times(&mut to)?;
        jobs::encode(&self.jobs, &mut to)
    }
}

impl Snapshot {
    fn encode_memory(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "What large batches are copied with";
        to.encode_descriptor("copies", help, None, MetricType::Gauge)?
            .encode_family(&[("by", self.copies.as_str())])?
            .encode_gauge(&1u64)?;
        let backing = &self.backing;
        for (name, help, bytes) in [
            (
                "memory_resident_bytes",
                "Device memory that is mapped",
                backing.resident_bytes,
            ),
            (
                "memory_huge_bytes",
                "Device memory that huge pages map",
                backing.huge_bytes,
            ),
        ] {
            if let Some(bytes) = bytes {
                to.encode_descriptor(name, help, None, MetricType::Gauge)?
                    .encode_family(&[("kind", backing.kind)])?
                    .encode_gauge(&bytes)?;
            }
        }
        Ok(())
    }

    fn encode_device(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let device = &self.device;
        for (name, help, value) in [
            (
                "connections",
                "Front ends that connected",
                device.connections,
            ),
            (
                "driver_starts",
                "Drivers that started",
                device.driver_starts,
            ),
            (
                "memory_updates",
                "Changes of the memory table",
                device.memory_updates,
            ),
            (
                "config_reads",
                "Reads of the configuration space",
                device.config_reads,
            ),
            (
                "config_writes",
                "Writes to the configuration space",
                device.config_writes,
            ),
        ] {
            to.encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn encode_contexts(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let contexts = &self.contexts;
        for (name, help, value) in [
            ("contexts", "Contexts that there are", contexts.present),
            (
                "page_table_bytes",
                "What the page tables of contexts take",
                contexts.table_bytes,
            ),
        ] {
            to.encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&value)?;
        }
        Ok(())
    }

    fn encode_results(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counter = MetricType::Counter;
        let help = "Batches and requests by result";
        let mut family = to.encode_descriptor("batches", help, None, counter)?;
        for (queue, counters) in &self.queues {
            for (result, number) in &counters.results {
                let labels = [("queue", queue.as_str()), ("result", *result)];
                count(&mut family, &labels, *number)?;
            }
        }
        let help = "Entries by operation and result";
        let mut family = to.encode_descriptor("entries", help, None, counter)?;
        for (queue, counters) in &self.queues {
            for (op, number) in &counters.ops {
                for (result, number) in
                    [("ok", number.entries_ok), ("failed", number.entries_failed)]
                {
                    let labels = [("queue", queue.as_str()), ("op", *op), ("result", result)];
                    count(&mut family, &labels, number)?;
                }
            }
        }
        let help = "Bytes copied or filled, or mapped";
        let mut family = to.encode_descriptor("bytes", help, None, counter)?;
        for (queue, counters) in &self.queues {
            for (op, number) in &counters.ops {
                let labels = [("queue", queue.as_str()), ("op", *op)];
                count(&mut family, &labels, number.bytes)?;
            }
        }
        Ok(())
    }

    fn encode_times(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let service = format!(
            "Time from start to completion of a batch, {}",
            self.service_kind
        );
        for (name, help, times) in [
            (
                "service_seconds",
                service.as_str(),
                (|queue| &queue.service) as fn(&QueueSnapshot) -> &HistogramSnapshot,
            ),
            (
                "delay_seconds",
                "Time from when a batch is seen to its start, measured",
                |queue| &queue.delay,
            ),
            (
                "copy_seconds",
                "Time that a batch really took, measured",
                |queue| &queue.copy,
            ),
        ] {
            let mut family = to.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (queue, counters) in &self.queues {
                let times = times(counters);
                if times.count > 0 {
                    family
                        .encode_family(&[("queue", queue.as_str())])?
                        .encode_histogram::<NoLabelSet>(
                            times.sum_ns as f64 / 1e9,
                            times.count,
                            &buckets(times),
                            None,
                        )?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use hmm_protocol::Status;

    use super::text;
    use crate::{
        jobs::JobsSnapshot,
        layout::QueueLayout,
        memory::BackingReport,
        mmu::ContextsSnapshot,
        stats::{Conditions, Stats},
    };

    #[test]
    fn the_text_has_every_counter_once() {
        let stats = Stats::new(QueueLayout::new(1, 0));
        stats.queue(3).kicks.add(7);
        stats.queue(0).record_control(Status::NoSession);
        stats.queue(2).record_delay(Duration::from_nanos(300));
        let text = text(stats.snapshot(Conditions {
            modelled: false,
            copies: "mem\"cpy\"".to_owned(),
            backing: BackingReport {
                kind: "memfd",
                prefaulted: false,
                resident_bytes: Some(4096),
                huge_bytes: None,
            },
            contexts: ContextsSnapshot {
                present: 3,
                table_bytes: 4136,
                table_bytes_max: 1 << 20,
            },
            jobs: JobsSnapshot {
                resumed: 3,
                ends: BTreeMap::from([("stalled", 2)]),
                ..JobsSnapshot::default()
            },
        }))
        .expect("a text");
        for expected in [
            "hmm_kicks_total{queue=\"bulk0\"} 7\n",
            "hmm_connections_total 0\n",
            "hmm_contexts 3\n",
            "hmm_page_table_bytes 4136\n",
            "hmm_fault_answers_total{answer=\"resume\"} 3\n",
            "hmm_jobs_ended_total{status=\"stalled\"} 2\n",
            "hmm_jobs_present 0\n",
            "hmm_memory_resident_bytes{kind=\"memfd\"} 4096\n",
            "hmm_copies{by=\"mem\\\"cpy\\\"\"} 1\n",
            "# TYPE hmm_kicks_total counter\n",
            "# TYPE hmm_delay_seconds histogram\n",
            "hmm_delay_seconds_count{queue=\"urgent\"} 1\n",
            "hmm_batches_total{queue=\"control\",result=\"no-session\"} 1\n",
            "hmm_delay_seconds_bucket{queue=\"urgent\",le=\"5.12e-07\"} 1\n",
            "hmm_delay_seconds_bucket{queue=\"urgent\",le=\"+Inf\"} 1\n",
            "hmm_delay_seconds_sum{queue=\"urgent\"} 3e-7\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        let mut series: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').expect("a value").0)
            .collect();
        let lines = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), lines, "a series occurs twice");
    }
}
