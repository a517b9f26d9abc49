// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How close the device comes to a plain memcpy of the same pages, in the same run.
//!
//! The whole path is measured: a front end that fills rings and polls records, the ring, validation, copy and
//! completion, against the real process. Times change from machine to machine and from minute to minute, so rounds of
//! memcpy and of the device alternate on the same pages and the same processor, and what counts is the median of their
//! ratios.

mod baseline;
mod figures;
mod jobs;
mod load;
mod path;
mod processors;
mod programs;
mod report;
mod threads;
mod translations;

use std::{io::Write, path::PathBuf, time::Duration};

use clap::Parser;

use self::{figures::measure, report::Report};

/// Measures the device beside memcpy.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Time for each figure, seconds
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,

    /// Memory that pages are taken from on each side, MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(64..=65536))]
    footprint: u64,

    /// Measure only figures whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,

    /// End with 1 unless the goals are met
    #[arg(long)]
    strict: bool,

    /// Measure small batches with this device as well, for instance one of an earlier version, in the same rounds
    #[arg(long, value_name = "PROGRAM")]
    beside: Option<String>,

    /// What cargo bench passes
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    let time = Duration::from_secs_f64(args.seconds.clamp(0.05, 3600.0));
    let report: Report = measure(
        time,
        args.footprint << 20,
        &args.only,
        args.beside.as_deref(),
    );
    print!("{report}");
    if let Some(path) = &args.json {
        let written = serde_json::to_vec_pretty(&report)
            .map_err(std::io::Error::from)
            .and_then(|bytes| std::fs::File::create(path)?.write_all(&bytes));
        if let Err(error) = written {
            eprintln!("Cannot write {}: {error}", path.display());
            return std::process::ExitCode::FAILURE;
        }
    }
    if args.strict && !report.goals_are_met() {
        return std::process::ExitCode::FAILURE;
    }
    std::process::ExitCode::SUCCESS
}
