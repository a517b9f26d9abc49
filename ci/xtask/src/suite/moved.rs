// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A suite with its memory on the move: `hmmctl run` follows all its processes, also those that are forked and those whose
//! parent has ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::declaration::Mover;

/// Prints the summary, which is where [`argv`] has it written.
pub(super) const READ: &str = "cat /tmp/suite.moved";
const SUMMARY: &str = "/tmp/suite.moved";

/// The words that stand before the suite's own.
pub(super) fn argv(mover: &Mover) -> Vec<String> {
    let interval = mover.interval.to_string();
    [
        "hmmctl",
        "run",
        "--policy",
        &mover.policy,
        "--interval",
        &interval,
        "--quiet",
        "--summary-json",
        SUMMARY,
        "--",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What hmmctl counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Moved {
    passes: u64,
    processes: u64,
    bytes_to_device: u64,
    bytes_to_system: u64,
    cpu_faults: u64,
    cpu_faults_failed: u64,
    copy_errors: u64,
    protocol_errors: u64,
    error: Option<String>,
}

impl Moved {
    pub(super) fn read(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    /// Why the run says nothing about memory on the move. A part of a suite may have no memory that can move.
    pub(super) fn problem(&self, is_part: bool) -> Option<String> {
        if let Some(error) = &self.error {
            return Some(format!("hmmctl stopped moving memory: {error}"));
        }
        if self.copy_errors > 0 || self.protocol_errors > 0 {
            return Some(format!(
                "{} copy errors and {} protocol errors",
                self.copy_errors, self.protocol_errors
            ));
        }
        (self.bytes_to_device == 0 && !is_part).then(|| "no memory was moved".to_owned())
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        write!(
            formatter,
            "{} MiB to the device and {} MiB back in {} passes over {} processes, {} CPU faults of which {} failed",
            self.bytes_to_device / MIB,
            self.bytes_to_system / MIB,
            self.passes,
            self.processes,
            self.cpu_faults,
            self.cpu_faults_failed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(bytes: u64, error: &str) -> Moved {
        Moved::read(
            format!(
                r#"{{"passes": 1, "processes": 2, "bytes_to_device": {bytes}, "bytes_to_system": 0, "cpu_faults": 3,
                "cpu_faults_failed": 0, "copy_errors": 0, "protocol_errors": 0, "error": {error}, "further": 1}}"#
            )
            .as_bytes(),
        )
        .unwrap()
    }

    #[test]
    fn a_whole_suite_that_moves_nothing_is_a_problem() {
        assert!(moved(0, "null").problem(false).is_some());
        assert_eq!(moved(0, "null").problem(true), None);
        assert_eq!(moved(4096, "null").problem(false), None);
        let stopped = moved(4096, r#""no device""#).problem(true).unwrap();
        assert!(stopped.contains("no device"), "{stopped}");
    }

    #[test]
    fn the_summary_goes_where_it_is_read() {
        let mover = Mover {
            policy: "churn".to_owned(),
            interval: 20,
        };
        assert!(
            argv(&mover)
                .iter()
                .any(|word| READ.ends_with(word.as_str()))
        );
    }
}
