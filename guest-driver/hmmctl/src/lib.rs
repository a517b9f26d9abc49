// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl`: moves memory of processes to the device and back, and shows where it is.
//!
//! Exit codes: 0 done; 1 failed; 2 wrong usage. `run`, `record` and `delay` pass on the exit code of their command
//! (128 + N if signal N ended it); its own failures are 125, and as with env(1) 126 means that the
//! command could not be executed and 127 that it was not found.

mod cli;
mod command;
mod debugfs;
mod delay;
mod maps;
mod output;
mod range;
mod record;
mod run;
mod size;
mod top;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use std::process::ExitCode;

/// The command line, for manual pages and the shells' completions.
pub fn command_line() -> clap::Command {
    Cli::command()
}

/// Says what is wrong with the way a delay is written, as `hmmctl delay` takes it.
///
/// # Errors
/// What was expected, and what was found.
pub fn check_delay(text: &str) -> Result<(), String> {
    text.parse::<delay::Delay>().map(drop)
}

/// Does what the command line of this process says; the exit code of the process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Info(info) => command::info::info(&cli.device, info),
        Command::Migrate(migrate) => command::migrate::migrate(&cli.device, migrate),
        Command::Residency(residency) => command::residency::residency(&cli.device, residency),
        Command::Advise(advise) => command::policy::advise(&cli.device, advise),
        Command::Prefetch(prefetch) => command::prefetch::prefetch(&cli.device, prefetch),
        Command::Evict(evict) => command::policy::evict(&cli.device, evict),
        Command::Limit(limit) => command::policy::limit(&cli.device, limit),
        Command::Job(job) => command::job::job(&cli.device, job),
        Command::Stats(stats) => command::stats::stats(&cli.device, stats),
        Command::Top(top) => top::top(&cli.device, top),
        Command::Watch(watch) => command::watch::watch(&cli.device, watch),
        Command::Delay(delays) => return delay::delay(delays),
        Command::Record(record) => return record::record(&cli.device, record),
        Command::Run(run) => return run::run(&cli.device, run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hmmctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
