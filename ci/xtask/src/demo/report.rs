// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What came out, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::task::Answer;

/// One run of the program.
pub(super) struct Run {
    pub(super) answer: Answer,
    pub(super) seconds: f64,
}

impl fmt::Display for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.answer.fmt(formatter)
    }
}

/// The working set has to be at least this large for the demonstration to show anything.
const ENOUGH: u64 = 64 << 20;

/// All figures. Times are measured on the host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    pub(super) accel: String,
    pub(super) kernel: String,
    pub(super) qemu: String,
    pub(super) program: String,
    pub(super) output_matches: bool,
    #[serde(flatten)]
    pub(super) moved: Moved,
    pub(super) seconds: Seconds,
}

/// What hmmctl counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moved {
    bytes_to_device: u64,
    bytes_to_system: u64,
    peak_resident_bytes: u64,
    cpu_faults: u64,
    batches: u64,
    doorbells: u64,
    skipped: BTreeMap<String, u64>,
    copy_errors: u64,
    #[serde(skip_serializing)]
    error: Option<String>,
}

/// How long the two runs took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Seconds {
    pub(super) plain: f64,
    pub(super) churn: f64,
}

impl Report {
    /// What the demonstration was to show and did not.
    pub(super) fn failures(&self) -> Vec<String> {
        let moved = &self.moved;
        let mut failures = Vec::new();
        let mut check = |good: bool, text: &str| {
            if !good {
                failures.push(text.to_owned());
            }
        };
        check(
            self.output_matches,
            "the outputs are not what they have to be",
        );
        check(
            moved.peak_resident_bytes >= ENOUGH,
            "there never were 64 MiB on the device",
        );
        check(
            moved.bytes_to_device >= ENOUGH,
            "hardly anything was moved to the device",
        );
        check(
            moved.bytes_to_system > 0 && moved.cpu_faults > 0,
            "no fault of the CPU brought anything back",
        );
        check(moved.copy_errors == 0, "copies failed");
        if let Some(error) = &moved.error {
            failures.push(format!("moving ended before the program: {error}"));
        }
        failures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved = &self.moved;
        let mut line = |name: &str, value: String| writeln!(out, "  {name:<24} {value}");
        line("program", self.program.clone())?;
        line("guest", format!("Linux {}, {}", self.kernel, self.accel))?;
        line(
            "output",
            if self.output_matches {
                "identical, and the right answer".to_owned()
            } else {
                "WRONG".to_owned()
            },
        )?;
        line("plain run", format!("{:.1} s", self.seconds.plain))?;
        line(
            "run with memory moving",
            format!("{:.1} s", self.seconds.churn),
        )?;
        line("moved to the device", mebibytes(moved.bytes_to_device))?;
        line("moved back", mebibytes(moved.bytes_to_system))?;
        line(
            "at most on the device",
            mebibytes(moved.peak_resident_bytes),
        )?;
        line("CPU faults", moved.cpu_faults.to_string())?;
        line(
            "batches, doorbells",
            format!("{}, {}", moved.batches, moved.doorbells),
        )?;
        line("copy errors", moved.copy_errors.to_string())?;
        let skipped: Vec<String> = moved
            .skipped
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        line(
            "pages skipped",
            if skipped.is_empty() {
                "none".to_owned()
            } else {
                skipped.join(", ")
            },
        )
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            accel: "tcg".to_owned(),
            kernel: "7.3".to_owned(),
            qemu: "QEMU".to_owned(),
            program: "sort /data".to_owned(),
            output_matches: true,
            moved: serde_json::from_str(
                r#"{"policy": "stress", "bytes_to_device": 300000000, "bytes_to_system": 200000000,
                    "peak_resident_bytes": 80000000, "cpu_faults": 9, "batches": 8, "doorbells": 8,
                    "skipped": {"pinned": 1}, "copy_errors": 0, "error": null}"#,
            )
            .unwrap(),
            seconds: Seconds {
                plain: 1.0,
                churn: 2.0,
            },
        }
    }

    #[test]
    fn the_file_has_the_keys_that_are_promised() {
        let value = serde_json::to_value(report()).unwrap();
        let mut keys: Vec<&str> = value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        let expected = [
            "accel",
            "batches",
            "bytes_to_device",
            "bytes_to_system",
            "copy_errors",
            "cpu_faults",
            "doorbells",
            "kernel",
            "output_matches",
            "peak_resident_bytes",
            "program",
            "qemu",
            "seconds",
            "skipped",
        ];
        assert_eq!(keys, expected);
        assert_eq!(value["seconds"]["churn"], 2.0);
        assert_eq!(value["skipped"]["pinned"], 1);
    }

    #[test]
    fn every_way_to_show_nothing_is_a_failure() {
        assert!(report().failures().is_empty());
        let spoilt: [fn(&mut Report); 6] = [
            |report| report.output_matches = false,
            |report| report.moved.peak_resident_bytes = 1 << 20,
            |report| report.moved.bytes_to_device = 0,
            |report| report.moved.bytes_to_system = 0,
            |report| report.moved.copy_errors = 1,
            |report| report.moved.error = Some("gone".to_owned()),
        ];
        for spoil in spoilt {
            let mut report = report();
            spoil(&mut report);
            assert_eq!(report.failures().len(), 1, "{report:?}");
        }
    }
}
