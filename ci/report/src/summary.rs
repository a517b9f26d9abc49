// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What profilers of unified memory print: for each kind of event how many there were, the bytes, and the time.

use crate::guest::GuestEvent;
use crate::recording::Recording;
use serde::Serialize;
use std::fmt;

/// A page, bytes.
const PAGE_BYTES: u64 = 4096;

/// What happened, by kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The version of this structure as JSON.
    pub version: u32,
    /// What was run, if it is known.
    pub command: String,
    /// From the first event to the last, seconds.
    pub seconds: f64,
    /// Events that the kernel had no room for: the rows lack them.
    pub lost_events: u64,
    /// The kinds, always the same, also those that did not occur.
    pub rows: Vec<Row>,
}

/// A kind of event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name for programs.
    pub kind: &'static str,
    /// Its name for readers.
    pub name: &'static str,
    /// How often.
    pub count: u64,
    /// How often it failed; not in the other numbers.
    pub failed: u64,
    /// Bytes; `None` where none move.
    pub bytes: Option<Spread>,
    /// Nanoseconds; `None` where no time is known.
    pub ns: Option<Spread>,
}

/// The spread of a quantity. All are 0 if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The sum.
    pub total: u64,
    /// The mean.
    pub average: u64,
    /// The least.
    pub minimum: u64,
    /// The greatest.
    pub maximum: u64,
}

impl Spread {
    fn of(values: &[u64]) -> Self {
        let total = (values.iter()).fold(0, |sum: u64, &value| sum.saturating_add(value));
        Self {
            total,
            average: total.checked_div(values.len() as u64).unwrap_or(0),
            minimum: values.iter().copied().min().unwrap_or(0),
            maximum: values.iter().copied().max().unwrap_or(0),
        }
    }
}

/// How a kind of event is found, and what is counted of it.
struct Kind {
    kind: &'static str,
    name: &'static str,
    is_it: fn(&GuestEvent) -> bool,
    bytes: Option<fn(&GuestEvent) -> Option<u64>>,
    has_time: bool,
}

fn bytes(event: &GuestEvent) -> Option<u64> {
    event.number("bytes")
}

fn is_batch(event: &GuestEvent, direction: &str) -> bool {
    event.name == "batch_done" && event.word("direction") == direction
}

const KINDS: [Kind; 7] = [
    Kind {
        kind: "cpu_page_faults",
        name: "CPU page faults",
        is_it: |event| event.name == "fault",
        bytes: Some(bytes),
        has_time: true,
    },
    Kind {
        kind: "device_page_faults",
        name: "Device page faults",
        is_it: |event| event.name == "device_fault",
        bytes: Some(|event| event.number("pages")?.checked_mul(PAGE_BYTES)),
        has_time: true,
    },
    Kind {
        kind: "host_to_device",
        name: "Host to device",
        is_it: |event| is_batch(event, "to_device"),
        bytes: Some(bytes),
        has_time: true,
    },
    Kind {
        kind: "device_to_host",
        name: "Device to host",
        is_it: |event| is_batch(event, "to_system"),
        bytes: Some(bytes),
        has_time: true,
    },
    Kind {
        kind: "prefetch",
        name: "  of both: prefetch",
        is_it: |event| event.name == "batch_done" && event.word("trigger") == "prefetch",
        bytes: Some(bytes),
        has_time: true,
    },
    Kind {
        kind: "eviction",
        name: "Eviction (blocks)",
        is_it: |event| event.name == "evict",
        bytes: Some(bytes),
        has_time: false,
    },
    Kind {
        kind: "invalidation",
        name: "Invalidation",
        is_it: |event| event.name == "invalidate",
        bytes: None,
        has_time: true,
    },
];

impl Summary {
    /// Sums a recording up.
    pub fn of(recording: &Recording) -> Self {
        let times = || recording.events.iter().map(|event| event.time);
        let (first, last) = (times().next(), times().next_back());
        Self {
            version: 1,
            command: recording.command.clone(),
            seconds: (last.zip(first)).map_or(0.0, |(last, first)| (last - first) / 1e6),
            lost_events: recording.lost,
            rows: (KINDS.iter())
                .map(|kind| kind.row(&recording.events))
                .collect(),
        }
    }
}

impl Kind {
    fn row(&self, events: &[GuestEvent]) -> Row {
        let (mut all_bytes, mut all_ns) = (Vec::new(), Vec::new());
        let (mut count, mut failed) = (0, 0);
        for event in events.iter().filter(|event| (self.is_it)(event)) {
            // Events without a result cannot fail.
            if !matches!(event.word("result"), "ok" | "") {
                failed += 1;
                continue;
            }
            count += 1;
            all_bytes.extend(self.bytes.and_then(|bytes| bytes(event)));
            all_ns.extend(event.number("ns").filter(|_| self.has_time));
        }
        Row {
            kind: self.kind,
            name: self.name,
            count,
            failed,
            bytes: self.bytes.map(|_| Spread::of(&all_bytes)),
            ns: self.has_time.then(|| Spread::of(&all_ns)),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unified memory profile, {:.3} s", self.seconds)?;
        if !self.command.is_empty() {
            write!(f, ": {}", self.command)?;
        }
        writeln!(
            f,
            "\n{:<20} {:>8} {:>6} | {:>10} {:>10} {:>10} {:>10} | {:>10} {:>10} {:>10} {:>10}",
            "", "count", "failed", "bytes", "avg", "min", "max", "time", "avg", "min", "max"
        )?;
        for row in &self.rows {
            write!(f, "{:<20} {:>8} {:>6} |", row.name, row.count, row.failed)?;
            spread(f, row.bytes, size)?;
            f.write_str(" |")?;
            spread(f, row.ns, duration)?;
            writeln!(f)?;
        }
        if self.lost_events > 0 {
            writeln!(
                f,
                "The kernel had no room for {} events: the numbers are too small.",
                self.lost_events
            )?;
        }
        Ok(())
    }
}

fn spread(
    f: &mut fmt::Formatter<'_>,
    spread: Option<Spread>,
    shown: fn(u64) -> String,
) -> fmt::Result {
    let texts = match spread {
        Some(s) => [s.total, s.average, s.minimum, s.maximum].map(shown),
        None => [const { String::new() }; 4].map(|_| "-".to_owned()),
    };
    for text in texts {
        write!(f, " {text:>10}")?;
    }
    Ok(())
}

/// Bytes with a unit.
fn size(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
    )
}

/// A time with a unit.
fn duration(ns: u64) -> String {
    scaled(ns as f64, 1000.0, &["ns", "us", "ms", "s"])
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut rest = units.iter();
    let mut unit = rest.next().unwrap_or(&"");
    let mut is_scaled = false;
    while value >= step
        && let Some(next) = rest.next()
    {
        value /= step;
        unit = next;
        is_scaled = true;
    }
    match is_scaled {
        true => format!("{value:.2} {unit}"),
        false => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Spread, Summary, duration, size};
    use crate::recording::Recording;

    const TEXT: &str = "\
# command sort
 s-1 [000] ..... 1.000000: vhmm_batch_submit: dev=virtio0 cookie=0x1 queue=3 trigger=user direction=to_device entries=1 bytes=4096
 s-1 [000] ..... 1.000100: vhmm_batch_done: dev=virtio0 cookie=0x1 queue=3 direction=to_device result=ok entries=1 entries_ok=1 bytes=4096 ns=100000
 s-1 [000] ..... 1.000200: vhmm_batch_submit: dev=virtio0 cookie=0x2 queue=3 trigger=prefetch direction=to_device entries=1 bytes=12288
 s-1 [000] ..... 1.000500: vhmm_batch_done: dev=virtio0 cookie=0x2 queue=3 direction=to_device result=ok entries=1 entries_ok=1 bytes=12288 ns=300000
 s-1 [000] ..... 1.000600: vhmm_batch_done: dev=virtio0 cookie=0x3 queue=3 direction=to_system result=timeout entries=1 entries_ok=0 bytes=4096 ns=900
 s-1 [000] ..... 1.500000: vhmm_fault: dev=virtio0 trigger=cpu_fault address=0x1 result=ok bytes=65536 ns=2000000
 j-1 [000] ..... 2.000000: vhmm_device_fault: dev=virtio0 context=1 number=1 address=0x1 access=read result=ok pages=2 ns=10
";

    #[test]
    fn events_are_counted_by_kind() {
        let summary = Summary::of(&Recording::read(TEXT, None).unwrap());
        let row = |kind: &str| summary.rows.iter().find(|row| row.kind == kind).unwrap();
        let to_device = row("host_to_device");
        assert_eq!((to_device.count, to_device.failed), (2, 0));
        assert_eq!(
            to_device.bytes,
            Some(Spread {
                total: 16384,
                average: 8192,
                minimum: 4096,
                maximum: 12288
            })
        );
        assert_eq!(to_device.ns.map(|ns| ns.total), Some(400_000));
        assert_eq!(row("prefetch").count, 1);
        // What failed is not in the other numbers.
        let to_host = row("device_to_host");
        assert_eq!((to_host.count, to_host.failed), (0, 1));
        assert_eq!(to_host.bytes, Some(Spread::default()));
        assert_eq!(
            row("device_page_faults").bytes.map(|bytes| bytes.total),
            Some(8192)
        );
        assert_eq!(
            row("cpu_page_faults").ns.map(|ns| ns.maximum),
            Some(2_000_000)
        );
        assert_eq!(row("eviction").ns, None);
        assert!((summary.seconds - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_text_has_a_line_for_each_kind_and_warns_of_lost_events() {
        let mut summary = Summary::of(&Recording::read(TEXT, None).unwrap());
        let text = summary.to_string();
        assert!(
            text.starts_with("Unified memory profile, 1.000 s: sort\n"),
            "{text}"
        );
        let line = text
            .lines()
            .find(|line| line.starts_with("Host to device"))
            .unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words[3..9],
            ["2", "0", "|", "16.00", "KiB", "8.00"],
            "{line}"
        );
        assert!(!text.contains("no room"));
        summary.lost_events = 3;
        assert!(summary.to_string().contains("no room for 3 events"));
    }

    #[test]
    fn quantities_have_units() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(u64::MAX), "16.00 EiB");
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(90_000_000_000), "90.00 s");
    }
}
