// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a run did.

use super::mover::Moved;
use crate::cli;
use crate::output::{bytes, skipped_line, skipped_map};
use hmm_uapi::Stats;
use hmm_uapi::client::{Error, Skipped};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::time::Duration;

/// What a run did. The counters are the device's, from just before the program's start to just
/// after its end; what other programs did on the device meanwhile is in them. Passes, processes and
/// skipped pages are the run's own.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    policy: &'static str,
    interval_ms: u128,
    exit_code: u8,
    seconds: f64,
    passes: u64,
    /// Time that the passes took to find out where pages are, and to move them.
    look_seconds: f64,
    move_seconds: f64,
    processes: u64,
    bytes_to_device: u64,
    bytes_to_system: u64,
    bytes_by_fault: u64,
    peak_resident_bytes: u64,
    cpu_faults: u64,
    cpu_faults_failed: u64,
    /// Time that threads waited for these faults.
    fault_seconds: f64,
    /// Bytes of `bytes_to_system` that hmmctl migrated back because the program fetched them page by page.
    bytes_brought_back: u64,
    batches: u64,
    doorbells: u64,
    copy_errors: u64,
    timeouts: u64,
    protocol_errors: u64,
    skipped: BTreeMap<&'static str, u64>,
    /// Why moving ended before the program did.
    error: Option<String>,
    #[serde(skip)]
    skipped_counts: Skipped,
}

impl Summary {
    /// Puts together what the mover and the device counted.
    pub(super) fn new(
        arguments: &cli::Run,
        exit_code: u8,
        seconds: f64,
        before: &Stats,
        after: Result<Stats, Error>,
        fault_time: Duration,
        moved: Moved,
    ) -> Self {
        let (after, error) = match after {
            Ok(after) => (after, moved.error),
            // Without the device's answer no figure is known; the error says so.
            Err(error) => (*before, moved.error.or_else(|| Some(error.to_string()))),
        };
        let grown = |counter: fn(&Stats) -> u64| counter(&after).saturating_sub(counter(before));
        // The highest value since the driver was bound belongs to this run only if it has risen.
        let peak_resident_bytes = if after.peak_resident_bytes > before.peak_resident_bytes {
            after.peak_resident_bytes
        } else {
            moved.peak_resident_bytes
        };
        Self {
            policy: arguments.policy.name(),
            interval_ms: arguments.interval.as_millis(),
            exit_code,
            seconds,
            passes: moved.passes,
            look_seconds: moved.look_time.as_secs_f64(),
            move_seconds: moved.move_time.as_secs_f64(),
            processes: moved.processes,
            bytes_to_device: grown(|stats| stats.bytes_to_device),
            bytes_to_system: grown(|stats| stats.bytes_to_system),
            bytes_by_fault: grown(|stats| stats.bytes_by_fault),
            peak_resident_bytes,
            cpu_faults: grown(|stats| stats.cpu_faults),
            cpu_faults_failed: grown(|stats| stats.cpu_faults_failed),
            fault_seconds: fault_time.as_secs_f64(),
            bytes_brought_back: moved.bytes_brought_back,
            batches: grown(|stats| stats.batches),
            doorbells: grown(|stats| stats.doorbells),
            copy_errors: grown(|stats| stats.copy_errors),
            timeouts: grown(|stats| stats.timeouts),
            protocol_errors: grown(|stats| stats.protocol_errors),
            skipped: skipped_map(&moved.skipped),
            error,
            skipped_counts: moved.skipped,
        }
    }

    /// Writes the summary as JSON.
    pub(super) fn write_json(&self, mut file: File) -> anyhow::Result<()> {
        serde_json::to_writer_pretty(&mut file, self)?;
        writeln!(file)?;
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "hmmctl: {:.1} s, {} passes ({:.1} s looking, {:.1} s moving), {} processes; {} to the device, {} back ({} by {} CPU faults that took {:.1} s), at most {} resident",
            self.seconds,
            self.passes,
            self.look_seconds,
            self.move_seconds,
            self.processes,
            bytes(self.bytes_to_device),
            bytes(self.bytes_to_system),
            bytes(self.bytes_by_fault),
            self.cpu_faults,
            self.fault_seconds,
            bytes(self.peak_resident_bytes),
        )?;
        writeln!(
            f,
            "hmmctl: {} batches, {} doorbells, {} copy errors; skipped pages: {}",
            self.batches,
            self.doorbells,
            self.copy_errors,
            skipped_line(&self.skipped_counts)
        )?;
        if let Some(error) = &self.error {
            writeln!(f, "hmmctl: moving ended before the program: {error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;
    use crate::cli::{Cli, Command, Run};
    use crate::run::mover::Moved;
    use clap::Parser;
    use hmm_uapi::client::{Error, Skipped};
    use hmm_uapi::{SKIP_REASONS, SkipReason, Stats};
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn arguments() -> Run {
        let cli = Cli::parse_from(["hmmctl", "run", "--policy=churn", "--interval=20", "true"]);
        let Command::Run(run) = cli.command else {
            panic!("not a run: {:?}", cli.command);
        };
        run
    }

    fn moved() -> Moved {
        let mut pages = [0; SKIP_REASONS];
        pages[SkipReason::Hole as usize] = 9;
        Moved {
            passes: 3,
            look_time: SECOND,
            move_time: 2 * SECOND,
            processes: 2,
            skipped: Skipped::new(pages),
            bytes_brought_back: 4096,
            peak_resident_bytes: 8192,
            error: None,
        }
    }

    fn stats(base: u64) -> Stats {
        Stats {
            bytes_to_device: base + 4096,
            bytes_to_system: base + 8192,
            cpu_faults: base + 2,
            batches: base + 3,
            doorbells: base + 4,
            copy_errors: base + 5,
            peak_resident_bytes: 1 << 20,
            ..Stats::default()
        }
    }

    #[test]
    fn counters_are_the_growth_during_the_run() {
        let before = stats(1000);
        let after = stats(51000);
        let summary = Summary::new(&arguments(), 7, 1.5, &before, Ok(after), SECOND, moved());
        let mut file = tempfile::tempfile().unwrap();
        summary.write_json(file.try_clone().unwrap()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let json: serde_json::Value = serde_json::from_reader(file).unwrap();
        for counter in [
            "bytes_to_device",
            "bytes_to_system",
            "cpu_faults",
            "batches",
            "doorbells",
            "copy_errors",
        ] {
            assert_eq!(json[counter], 50000, "{counter}");
        }
        assert_eq!(json["policy"], "churn");
        assert_eq!(json["exit_code"], 7);
        assert_eq!(json["seconds"], 1.5);
        assert_eq!(json["fault_seconds"], 1.0);
        assert_eq!(json["bytes_brought_back"], 4096);
        assert_eq!(json["passes"], 3);
        assert_eq!(json["skipped"]["hole"], 9);
        assert_eq!(json["error"], serde_json::Value::Null);
        assert_eq!(json["peak_resident_bytes"], 8192);
    }

    #[test]
    fn a_peak_that_rose_is_this_runs() {
        let mut after = stats(0);
        after.peak_resident_bytes = 3 << 20;
        let summary = Summary::new(&arguments(), 0, 0.0, &stats(0), Ok(after), SECOND, moved());
        assert_eq!(summary.peak_resident_bytes, 3 << 20);
    }

    #[test]
    fn a_device_that_is_gone_is_told() {
        let gone = Err(Error::Gone { call: "STATS" });
        let summary = Summary::new(&arguments(), 0, 0.0, &stats(0), gone, SECOND, moved());
        assert!(summary.to_string().contains("the device is gone"));
    }
}
