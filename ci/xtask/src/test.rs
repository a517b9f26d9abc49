// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask test`.

mod failures;
mod host;
mod picture;
mod program;
mod report;
mod results;
mod slowest;
mod tally;

use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::str::FromStr;

use anyhow::{Context, ensure};
use hmm_tests::partition::Partition;
use hmm_tests::timing::{self, Timing};
use hmm_tests::{boots, load, partition, recording};
use hmm_vm::Progress;
use hmm_vm::accel::AcceleratorChoice;
use hmm_vm::guest::Depth;

use crate::build;
use crate::report::Pages;
use crate::setup_arguments::SetupArguments;
use crate::signals::Followers;
use failures::Failures;
use program::Ran;
use slowest::Slowest;
use tally::Tally;

/// Arguments of `test`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: SetupArguments,
    /// Only tests whose names contain this. Those on a debug kernel begin with `debug/`.
    #[arg(long, value_name = "PATTERN")]
    filter: Option<String>,
    /// Only the tests that boot guests.
    #[arg(long, conflicts_with = "host_only")]
    guest_only: bool,
    /// Only the tests that boot nothing; they need no set-up.
    #[arg(long)]
    host_only: bool,
    /// How many rounds tests do: `short` for every change, `long` for hours.
    #[arg(
        long,
        value_name = "short|long",
        default_value = "short",
        env = load::DEPTH_VARIABLE,
        value_parser = checked::<Depth>
    )]
    depth: String,
    /// Only part M of N of the tests. The part of a test depends on its name alone, so that N machines can share them.
    #[arg(
        long,
        value_name = "M/N",
        default_value = "1/1",
        env = partition::VARIABLE,
        value_parser = checked::<Partition>
    )]
    partition: String,
    /// How many guests run at once; without it as many as this machine's processors carry, and up to 4.
    #[arg(long, value_name = "NUMBER", env = boots::GUESTS_VARIABLE)]
    guests: Option<NonZeroUsize>,
    /// Writes all results to this file, as JUnit's XML.
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    junit: Option<PathBuf>,
    /// Record what driver and device do while the guest's cases run, and write results and pictures of it: one HTML file.
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    report: Option<PathBuf>,
    /// Names the tests that would run, one a line, and runs none. Those of guests need the set-up.
    #[arg(long)]
    list: bool,
    /// How the guest's processors run: `auto` takes kvm where ordinary guests really run, and tcg elsewhere.
    #[arg(
        long,
        value_name = "auto|kvm|tcg",
        default_value = "auto",
        env = ACCELERATOR_VARIABLE,
        value_parser = checked::<AcceleratorChoice>
    )]
    accel: String,
}

/// The test program reads the choice; here it is only checked.
fn checked<T: FromStr>(text: &str) -> Result<String, T::Err> {
    text.parse::<T>().map(|_| text.to_owned())
}

/// Where the tests look for the choice of the accelerator.
const ACCELERATOR_VARIABLE: &str = "HMM_ACCEL";
/// No test has the pattern in its name.
const USAGE: u8 = 2;
/// Nothing passed, and nothing failed.
const ALL_SKIPPED: u8 = 4;

/// Runs the tests of the host, then those of the guest, and counts them together.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let progress = Progress::new();
    let followers = Followers::watch()?;
    let kernels = match arguments.host_only {
        true => Vec::new(),
        false => arguments.setup.kernels(),
    };
    let partition: Partition = arguments.partition.parse()?;
    let mut programs = Vec::new();
    let mut pages = Pages::begin(arguments.report.as_deref())?;
    let recordings = tempfile::tempdir().context("cannot make a folder for recordings")?;
    if !arguments.guest_only {
        progress.line("tests of the host");
        programs.extend(host_tests(arguments, &partition, &followers)?);
    }
    let times = build::target_folder()?.join("hmm").join("times.jsonl");
    remove(&times)?;
    for kernel in kernels {
        let options = arguments.setup.options_for(kernel);
        let artifacts = build::test_artifacts(&options, &progress)?;
        progress.line(&format!("tests of the guest, {}", options.kernel));
        let mut command = guest_tests(arguments, &artifacts, &times)?;
        if pages.is_some() {
            command.env(recording::VARIABLE, recordings.path());
        }
        let ran = program::run(&format!("guest, {}", options.kernel), command, &followers)?;
        ensure!(
            ran.code != Some(crate::ENVIRONMENT.into()),
            "the guest tests cannot run here; what is missing is said above"
        );
        programs.push(ran);
    }
    let timings = match std::fs::read_to_string(&times) {
        Ok(text) => timing::read(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", times.display()));
        }
    };
    if arguments.list {
        let failed = programs
            .iter()
            .any(|ran| ran.code.is_some_and(|code| code != 0));
        return Ok(ExitCode::from(if failed { crate::FAILURE } else { 0 }));
    }
    if let Some(path) = &arguments.junit {
        report::write(path, &programs, &timings)?;
    }
    if let Some(pages) = &mut pages {
        picture::write(pages, recordings.path(), &programs, &timings)?;
    }
    Ok(conclude(arguments, &partition, &programs, &timings))
}

/// Says what matters once more at the end, which CI services show first.
fn conclude(
    arguments: &Arguments,
    partition: &Partition,
    programs: &[Ran],
    timings: &[Timing],
) -> ExitCode {
    let (mut sum, mut failures) = (Tally::default(), Failures::default());
    for ran in programs {
        sum += ran.tally;
        failures.extend(&ran.failures);
    }
    if sum.total() == 0
        && partition.is_all()
        && let Some(filter) = &arguments.filter
    {
        eprintln!("error: no test has '{filter}' in its name");
        return ExitCode::from(USAGE);
    }
    if !timings.is_empty() {
        println!("{}", Slowest(timings));
    }
    if !failures.is_empty() {
        println!("{failures}");
    }
    println!("{sum}");
    ExitCode::from(if sum.failed > 0 {
        crate::FAILURE
    } else if sum.passed == 0 && sum.total() > 0 {
        ALL_SKIPPED
    } else {
        // A part of few tests may be empty.
        0
    })
}

fn host_tests(
    arguments: &Arguments,
    partition: &Partition,
    followers: &Followers,
) -> anyhow::Result<Vec<Ran>> {
    let filter = arguments.filter.as_deref();
    let mut programs = Vec::new();
    for program in host::build()? {
        let names = match arguments.list || !partition.is_all() {
            true => Some(program.tests(filter, partition)?),
            false => None,
        };
        if arguments.list {
            for name in names.iter().flatten() {
                println!("{}: {name}", program.name);
            }
            continue;
        }
        let mut command = program.command();
        match &names {
            Some(names) if names.is_empty() => continue,
            Some(names) => command.arg("--exact").args(names),
            None => command.args(filter),
        };
        colour(&mut command);
        eprintln!("     Running {}", program.name);
        programs.push(program::run(&program.name, command, followers)?);
    }
    // The examples in the documentation are few, and have no names that last.
    if !arguments.list && partition.contains("examples of the documentation") {
        let mut command = host::cargo(&["--doc", "--no-fail-fast"])?;
        command.arg("--").args(filter);
        colour(&mut command);
        programs.push(program::run(
            "examples of the documentation",
            command,
            followers,
        )?);
    }
    Ok(programs)
}

fn guest_tests(arguments: &Arguments, artifacts: &Path, times: &Path) -> anyhow::Result<Command> {
    let mut command = build::cargo_test(&["--package", "hmm-tests", "--test", "guest"])?;
    command
        .env(hmm_vm::ARTIFACTS_VARIABLE, artifacts)
        .env(ACCELERATOR_VARIABLE, &arguments.accel)
        .env(load::DEPTH_VARIABLE, &arguments.depth)
        .env(partition::VARIABLE, &arguments.partition)
        .env(timing::VARIABLE, times);
    if let Some(guests) = arguments.guests {
        command.env(boots::GUESTS_VARIABLE, guests.to_string());
    }
    command.arg("--").args(&arguments.filter);
    if arguments.list {
        command.arg("--list");
    }
    colour(&mut command);
    Ok(command)
}

/// The tests write to a pipe and would not know that it ends in a terminal.
fn colour(command: &mut Command) {
    if io::stdout().is_terminal() {
        command.args(["--color", "always"]);
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
