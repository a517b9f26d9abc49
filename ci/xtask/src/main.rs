// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask`: the developer commands of virtio-hmm.
//!
//! Exit codes: 0 success, 1 a test failed, 2 usage, 3 the environment lacks something, 124 time-out,
//! 125 QEMU, the device or the guest broke. `run` passes on the command's own code.

mod bench;
mod bisect;
mod browser;
mod build;
mod check;
mod delay;
mod demo;
mod doctor;
mod documents;
mod finds;
mod fuzz;
mod guest_arguments;
mod hermetic;
mod imports;
mod models;
mod mutants;
mod package;
mod report;
mod run;
mod setup;
mod setup_arguments;
mod shell;
mod signals;
mod suite;
mod supervise;
mod surroundings;
mod test;
mod trace_join;
#[cfg(test)]
mod workflows;
#[cfg(test)]
mod written_commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hmm_vm::SetupError;
use hmm_vm::guest::GuestError;
use hmm_vm::initramfs::PackError;

/// Developer commands of virtio-hmm.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make everything that a guest needs: QEMU, the kernel, the driver.
    Setup(setup::Arguments),
    /// Show an unmodified program giving the right answer while its memory is on the move.
    Demo(Box<demo::Arguments>),
    /// Run a command of this machine in the guest.
    Run(Box<run::Arguments>),
    /// Plug a device into a QEMU that you have started, and bring it back when its process dies or hangs.
    Supervise(supervise::Arguments),
    /// Try a revision of a kernel tree for `git bisect run`: build it, boot it, run a command.
    BisectRun(Box<bisect::Arguments>),
    /// Give a prompt in the guest.
    Shell(shell::Arguments),
    /// Run the tests of the host and of the guest.
    Test(test::Arguments),
    /// Run an unmodified test suite by others: on this driver and on what it was written for, or plainly and with its memory on the move.
    Suite(suite::Arguments),
    /// Show each fault of the kernel that the project has found, without its patch and with it.
    Finds(finds::Arguments),
    /// Look for inputs that the device does not stand, guided by coverage, for a bounded time.
    Fuzz(fuzz::Arguments),
    /// Model-check the device's workers against changes of what they work on, in all interleavings.
    Models,
    /// Build the driver without one check after the other that it makes when a device is lost, and see that a test notices each.
    Mutants(mutants::Arguments),
    /// Measure beside a plain memcpy.
    Bench(bench::Arguments),
    /// Make a picture of a recording, one HTML file, and print its summary.
    Report(report::Arguments),
    /// Open reports in a browser without a screen, use them, and fail on any error of their scripts.
    Browser(browser::Arguments),
    /// Put the guest's trace events and the device's trace into one file for Perfetto.
    TraceJoin(trace_join::Arguments),
    /// Check the form and the lints of all the code.
    Check(check::Arguments),
    /// Write the manual pages and the shells' completions of all programs into a folder.
    Documents(documents::Arguments),
    /// Make Debian packages of the device, the command, the driver's source and the C header.
    Package(package::Arguments),
    /// Say what this machine has, what it lacks, and the command that installs it.
    Doctor(doctor::Arguments),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // A request for help is no error.
        Err(error) if error.use_stderr() => {
            let Some(code) = bisect::code_of_usage(std::env::args_os()) else {
                error.exit();
            };
            // What cannot be printed is lost either way.
            let _ = error.print();
            return code;
        }
        Err(help) => help.exit(),
    };
    let outcome = match cli.command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Supervise(arguments) => supervise::run(&arguments),
        Command::BisectRun(arguments) => Ok(bisect::run(&arguments)),
        Command::Shell(arguments) => shell::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Suite(arguments) => suite::run(&arguments),
        Command::Finds(arguments) => finds::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Models => models::run(),
        Command::Mutants(arguments) => mutants::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Browser(arguments) => browser::run(&arguments),
        Command::TraceJoin(arguments) => trace_join::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Documents(arguments) => documents::run(&arguments),
        Command::Package(arguments) => package::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(exit_code(&error))
    })
}

/// A test failed, or the sources are wrong.
const FAILURE: u8 = 1;
/// What was asked for cannot be.
const USAGE: u8 = 2;
/// The command is not there, as a shell says it.
const NOT_FOUND: u8 = 127;
/// The environment lacks something.
const ENVIRONMENT: u8 = 3;
/// QEMU, the device or the guest broke.
const INFRASTRUCTURE: u8 = 125;

/// The exit code of an error that no command turned into one itself.
fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<GuestError>() {
        return error.exit_code();
    }
    if let Some(error) = error.downcast_ref::<PackError>() {
        return match error {
            PackError::NotFound { .. } => NOT_FOUND,
            _ => USAGE,
        };
    }
    match error.downcast_ref::<SetupError>() {
        Some(SetupError::Driver { .. }) => FAILURE,
        Some(_) => ENVIRONMENT,
        None => INFRASTRUCTURE,
    }
}
