// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask test`.

mod failures;
mod tally;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::str::FromStr;

use anyhow::Context;
use hmm_vm::Progress;
use hmm_vm::accel::AcceleratorChoice;

use crate::build;
use crate::setup_arguments::SetupArguments;
use crate::signals::Followers;
use failures::Failures;
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
    /// How the guest's processors run: `auto` takes kvm where ordinary guests really run, and tcg elsewhere.
    #[arg(
        long,
        value_name = "auto|kvm|tcg",
        default_value = "auto",
        env = ACCELERATOR_VARIABLE,
        value_parser = accelerator
    )]
    accel: String,
}

/// The choice is the test program's to make; here it is only checked.
fn accelerator(text: &str) -> Result<String, <AcceleratorChoice as FromStr>::Err> {
    text.parse::<AcceleratorChoice>().map(|_| text.to_owned())
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
    let (mut sum, mut failures) = (Tally::default(), Failures::default());
    if !arguments.guest_only {
        progress.line("tests of the host");
        sum += host_tests(arguments, &followers, &mut failures)?;
    }
    for kernel in kernels {
        let options = arguments.setup.options_for(kernel);
        let artifacts = build::test_artifacts(&options, &progress)?;
        progress.line(&format!("tests of the guest, {}", options.kernel));
        sum += guest_tests(arguments, &artifacts, &followers, &mut failures)?;
    }
    if sum.total() == 0
        && let Some(filter) = &arguments.filter
    {
        eprintln!("error: no test has '{filter}' in its name");
        return Ok(ExitCode::from(USAGE));
    }
    if !failures.is_empty() {
        println!("{failures}");
    }
    println!("{sum}");
    Ok(ExitCode::from(if sum.failed > 0 {
        crate::FAILURE
    } else if sum.passed == 0 {
        ALL_SKIPPED
    } else {
        0
    }))
}

fn host_tests(
    arguments: &Arguments,
    followers: &Followers,
    failures: &mut Failures,
) -> anyhow::Result<Tally> {
    let mut command = cargo_test(&["--workspace", "--no-fail-fast"])?;
    harness_arguments(&mut command, arguments);
    let (tally, code) = counted(command, followers, failures)?;
    Ok(checked(tally, code))
}

fn guest_tests(
    arguments: &Arguments,
    artifacts: &Path,
    followers: &Followers,
    failures: &mut Failures,
) -> anyhow::Result<Tally> {
    let mut command = cargo_test(&["--package", "hmm-tests", "--test", "guest"])?;
    command
        .env(hmm_vm::ARTIFACTS_VARIABLE, artifacts)
        .env(ACCELERATOR_VARIABLE, &arguments.accel);
    harness_arguments(&mut command, arguments);
    let (tally, code) = counted(command, followers, failures)?;
    anyhow::ensure!(
        code != Some(crate::ENVIRONMENT.into()),
        "the guest tests cannot run here; what is missing is said above"
    );
    Ok(checked(tally, code))
}

/// Tests that could not be built or that ended in the middle have no result of their own and count as one failure.
fn checked(mut tally: Tally, code: Option<i32>) -> Tally {
    if code != Some(0) && tally.failed == 0 {
        tally.failed = 1;
    }
    tally
}

fn cargo_test(arguments: &[&str]) -> anyhow::Result<Command> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command
        .arg("test")
        .args(arguments)
        .arg("--target-dir")
        .arg(build::target_folder()?)
        .current_dir(build::repository()?);
    Ok(command)
}

fn harness_arguments(command: &mut Command, arguments: &Arguments) {
    command.arg("--").args(&arguments.filter);
    if io::stdout().is_terminal() {
        // The tests write to a pipe and would not know.
        command.args(["--color", "always"]);
    }
}

/// Runs tests, passes on what they print as it comes, counts their results, and keeps why they failed. Also returns
/// cargo's exit code.
fn counted(
    mut command: Command,
    followers: &Followers,
    failures: &mut Failures,
) -> anyhow::Result<(Tally, Option<i32>)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // With the tests that it runs, so that all of them end with this program.
        .process_group(0)
        .spawn()
        .context("cannot start cargo")?;
    let included = followers.include(&child);
    let mut output = child
        .stdout
        .take()
        .context("the output of cargo is missing")?;
    let mut tally = Tally::default();
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot read what cargo prints"),
        };
        let bytes = &buffer[..length];
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .context("cannot write to standard output")?;
        for &byte in bytes {
            if byte == b'\n' {
                let text = String::from_utf8_lossy(&line);
                tally += Tally::of_line(&text);
                failures.line(&text);
                line.clear();
            } else {
                line.push(byte);
            }
        }
    }
    drop(included);
    let status = child.wait().context("cannot wait for cargo")?;
    Ok((tally, status.code()))
}
