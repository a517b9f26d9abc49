// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The counters in Prometheus' text format. Every number is measured, but for service times behind a modelled link, which
//! say so.

use std::fmt::Write;

use super::{HistogramSnapshot, QueueSnapshot, Snapshot};

/// Names, their kind and their meaning, and where each comes from.
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
pub fn text(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let device = &snapshot.device;
    text.push_str(
        "# HELP hmm_copies What large batches are copied with\n# TYPE hmm_copies gauge\n",
    );
    line(&mut text, "hmm_copies", &[("by", &snapshot.copies)], 1);
    let backing = &snapshot.backing;
    for (name, help, bytes) in [
        (
            "hmm_memory_resident_bytes",
            "Device memory that is mapped",
            backing.resident_bytes,
        ),
        (
            "hmm_memory_huge_bytes",
            "Device memory that huge pages map",
            backing.huge_bytes,
        ),
    ] {
        if let Some(bytes) = bytes {
            writes(
                &mut text,
                format_args!("# HELP {name} {help}\n# TYPE {name} gauge\n"),
            );
            line(&mut text, name, &[("kind", backing.kind)], bytes);
        }
    }
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
        head(&mut text, name, "counter", help);
        line(&mut text, &format!("hmm_{name}_total"), &[], value);
    }
    for (name, help, value) in BY_QUEUE {
        head(&mut text, name, "counter", help);
        for (queue, counters) in &snapshot.queues {
            let labels = [("queue", queue.as_str())];
            line(
                &mut text,
                &format!("hmm_{name}_total"),
                &labels,
                value(counters),
            );
        }
    }
    head(
        &mut text,
        "batches",
        "counter",
        "Batches and requests by result",
    );
    for (queue, counters) in &snapshot.queues {
        for (result, count) in &counters.results {
            let labels = [("queue", queue.as_str()), ("result", result)];
            line(&mut text, "hmm_batches_total", &labels, *count);
        }
    }
    head(
        &mut text,
        "entries",
        "counter",
        "Entries by operation and result",
    );
    for (queue, counters) in &snapshot.queues {
        for (op, count) in &counters.ops {
            for (result, number) in [("ok", count.entries_ok), ("failed", count.entries_failed)] {
                let labels = [("queue", queue.as_str()), ("op", op), ("result", result)];
                line(&mut text, "hmm_entries_total", &labels, number);
            }
        }
    }
    head(&mut text, "bytes", "counter", "Bytes copied or filled");
    for (queue, counters) in &snapshot.queues {
        for (op, count) in &counters.ops {
            let labels = [("queue", queue.as_str()), ("op", op)];
            line(&mut text, "hmm_bytes_total", &labels, count.bytes);
        }
    }
    let service = format!(
        "Time from start to completion of a batch, {}",
        snapshot.service_kind
    );
    for (name, help, histogram) in [
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
        writes(
            &mut text,
            format_args!("# HELP hmm_{name} {help}\n# TYPE hmm_{name} histogram\n"),
        );
        for (queue, counters) in &snapshot.queues {
            buckets(&mut text, name, queue, histogram(counters));
        }
    }
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    writes(
        text,
        format_args!("# HELP hmm_{name}_total {help}\n# TYPE hmm_{name}_total {kind}\n"),
    );
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    text.push_str(name);
    for (index, (label, value)) in labels.iter().enumerate() {
        let separator = if index == 0 { '{' } else { ',' };
        writes(text, format_args!("{separator}{label}=\"{value}\""));
    }
    if !labels.is_empty() {
        text.push('}');
    }
    writes(text, format_args!(" {value}\n"));
}

fn buckets(text: &mut String, name: &str, queue: &str, histogram: &HistogramSnapshot) {
    if histogram.count == 0 {
        return;
    }
    let mut below = 0;
    for (bound, count) in &histogram.buckets {
        below += count;
        if let Some(bound) = bound {
            let seconds = *bound as f64 / 1e9;
            writes(
                text,
                format_args!("hmm_{name}_bucket{{queue=\"{queue}\",le=\"{seconds}\"}} {below}\n"),
            );
        }
    }
    let (count, sum) = (histogram.count, histogram.sum_ns as f64 / 1e9);
    writes(
        text,
        format_args!(
            "hmm_{name}_bucket{{queue=\"{queue}\",le=\"+Inf\"}} {count}\n\
             hmm_{name}_sum{{queue=\"{queue}\"}} {sum}\n\
             hmm_{name}_count{{queue=\"{queue}\"}} {count}\n"
        ),
    );
}

fn writes(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hmm_protocol::Status;

    use super::text;
    use crate::{
        memory::BackingReport,
        stats::{Conditions, Stats},
    };

    #[test]
    fn the_text_has_every_counter_once() {
        let stats = Stats::new(4);
        stats.queue(3).kicks.add(7);
        stats.queue(0).record_control(Status::NoSession);
        stats.queue(2).record_delay(Duration::from_nanos(300));
        let text = text(&stats.snapshot(Conditions {
            modelled: false,
            copies: "memcpy".to_owned(),
            backing: BackingReport {
                kind: "memfd",
                prefaulted: false,
                resident_bytes: Some(4096),
                huge_bytes: None,
            },
        }));
        for expected in [
            "hmm_kicks_total{queue=\"bulk0\"} 7\n",
            "hmm_connections_total 0\n",
            "hmm_memory_resident_bytes{kind=\"memfd\"} 4096\n",
            "hmm_copies{by=\"memcpy\"} 1\n",
            "hmm_batches_total{queue=\"control\",result=\"no-session\"} 1\n",
            "hmm_delay_seconds_bucket{queue=\"urgent\",le=\"0.000000512\"} 1\n",
            "hmm_delay_seconds_bucket{queue=\"urgent\",le=\"+Inf\"} 1\n",
            "hmm_delay_seconds_sum{queue=\"urgent\"} 0.0000003\n",
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
