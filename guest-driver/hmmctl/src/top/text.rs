// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `top --once` prints.

use super::rates::Rates;
use super::sample::Sample;
use crate::output::bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// What is shown as a rate: the counter, its name for readers, and whether it counts bytes.
pub(super) const SHOWN: [(&str, &str, bool); 10] = [
    ("bytes_to_device", "host to device", true),
    ("bytes_to_system", "device to host", true),
    ("bytes_by_fault", "  by CPU faults", true),
    ("bytes_by_eviction", "  by eviction", true),
    ("cpu_faults", "CPU faults", false),
    ("device_faults", "device faults", false),
    ("invalidations", "invalidations", false),
    ("jobs", "jobs", false),
    ("batches", "batches", false),
    ("doorbells", "doorbells", false),
];

/// A sample and the rates that led to it, for JSON.
#[derive(Serialize)]
pub(super) struct Reply<'a> {
    #[serde(flatten)]
    sample: &'a Sample,
    /// Seconds that the rates are of.
    interval_seconds: f64,
    /// What the counters grew by, a second.
    per_second: &'a BTreeMap<String, f64>,
    /// Pages that were skipped, a second.
    skipped_per_second: &'a BTreeMap<String, f64>,
}

impl<'a> Reply<'a> {
    pub(super) fn new(sample: &'a Sample, rates: &'a Rates) -> Self {
        Self {
            sample,
            interval_seconds: rates.seconds,
            per_second: &rates.counters,
            skipped_per_second: &rates.skipped,
        }
    }
}

/// A rate as readers want it: `12.0 MiB/s`, `3.4 /s`.
pub(super) fn rate(rate: f64, is_bytes: bool) -> String {
    if is_bytes {
        // Rates are neither negative nor so large that a number of bytes cannot hold them.
        format!("{}/s", bytes(rate as u64))
    } else {
        format!("{rate:.1} /s")
    }
}

/// A counter's value as readers want it.
pub(super) fn total(count: u64, is_bytes: bool) -> String {
    match is_bytes {
        true => bytes(count),
        false => count.to_string(),
    }
}

/// How full the device is: `64.0 MiB of 1.0 GiB (6 %)`.
pub(super) fn fill(sample: &Sample) -> String {
    let resident = sample.counter("resident_bytes");
    let percent = (u128::from(resident) * 100)
        .checked_div(u128::from(sample.memory_bytes))
        .unwrap_or(0);
    format!(
        "{} of {} ({percent} %)",
        bytes(resident),
        bytes(sample.memory_bytes)
    )
}

/// Writes all of it as text.
pub(super) fn write(out: &mut dyn Write, sample: &Sample, rates: &Rates) -> io::Result<()> {
    writeln!(
        out,
        "{} {}, resident {}, highest {}",
        sample.node,
        sample.device,
        fill(sample),
        bytes(sample.counter("peak_resident_bytes"))
    )?;
    writeln!(
        out,
        "\n{:<20} {:>14} {:>14}",
        "",
        format!("in {:.2} s", rates.seconds),
        "in all"
    )?;
    for (counter, name, is_bytes) in SHOWN {
        // Debugfs may be out of reach.
        let Some(&count) = sample.counters.get(counter) else {
            continue;
        };
        writeln!(
            out,
            "{name:<20} {:>14} {:>14}",
            rate(rates.counter(counter), is_bytes),
            total(count, is_bytes)
        )?;
    }
    if !sample.skipped.is_empty() {
        writeln!(
            out,
            "\n{:<20} {:>14} {:>14}",
            "skipped pages", "rate", "in all"
        )?;
        for (reason, count) in &sample.skipped {
            let speed = rates.skipped.get(reason).copied().unwrap_or(0.0);
            writeln!(out, "{reason:<20} {:>14} {count:>14}", rate(speed, false))?;
        }
    }
    writeln!(
        out,
        "\n{:>8} {:>12} {:>12}  program",
        "process", "resident", "limit"
    )?;
    for process in &sample.processes {
        writeln!(
            out,
            "{:>8} {:>12} {:>12}  {}",
            process.pid,
            bytes(process.resident_bytes),
            process.limit_bytes.map_or("none".to_owned(), bytes),
            process.name
        )?;
    }
    Ok(())
}
