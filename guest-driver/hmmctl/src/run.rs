// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl run`: runs a program and keeps moving its memory.
//!
//! The program is not touched: its standard streams, its arguments and its environment are passed
//! on. One thread of hmmctl moves memory, the other waits for the program and forwards signals.

mod look;
mod mover;
mod pace;
mod processes;
mod program;
mod signals;
mod stall;
mod summary;
mod tree;

pub(crate) use look::populated;
pub(crate) use program::{Program, StartError};
pub(crate) use signals::Signals;
pub(crate) use tree::Tree;

use crate::cli;
use anyhow::{Context, bail};
use hmm_uapi::client::Device;
use mover::Mover;
pub(crate) use pace::Rules;
use rustix::thread::CapabilitySet;
use stall::Stall;
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use summary::Summary;

/// hmmctl itself failed, as with env(1).
const OWN_FAILURE: u8 = 125;

/// Runs a program and keeps moving its memory; the program's exit code.
pub(crate) fn run(node: &Path, arguments: &cli::Run) -> ExitCode {
    exit_code(try_run(node, arguments))
}

/// The exit code of the program that was run, or says why it was not run, with the code for that.
pub(crate) fn exit_code(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = error
                .downcast_ref::<StartError>()
                .map_or(OWN_FAILURE, StartError::exit_code);
            eprintln!("hmmctl: {error:#}");
            ExitCode::from(code)
        }
    }
}

fn try_run(node: &Path, arguments: &cli::Run) -> anyhow::Result<u8> {
    // Everything that can fail is tried before the program starts: it must not run half-way.
    let device = Device::open(node)?;
    if !may_move_memory_of_others()? {
        bail!("moving the memory of another process takes CAP_SYS_PTRACE (run as root)");
    }
    let json = arguments
        .summary_json
        .as_ref()
        .map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())))
        .transpose()?;
    let before = device.stats()?;
    let mut stall = Stall::new(node);
    let stalled_before = stall.total(before.cpu_faults);
    let signals = Signals::block()?;

    let started = Instant::now();
    let program = Program::start(&arguments.command, &signals)?;
    let mover = Mover::start(
        device,
        stall.clone(),
        program.id(),
        arguments.policy,
        arguments.interval,
    )?;
    let code = program.wait(&signals)?;
    let seconds = started.elapsed().as_secs_f64();
    let (device, moved) = mover.stop();

    let after = device.stats();
    // The faults after the mover's last look are in it, too.
    let stalled = (after.as_ref().ok())
        .map_or(stalled_before, |after| stall.total(after.cpu_faults))
        .saturating_sub(stalled_before);
    let summary = Summary::new(arguments, code, seconds, &before, after, stalled, moved);
    if !arguments.quiet {
        eprint!("{summary}");
    }
    if let Some(file) = json {
        // The program's exit code says how the program ended; a summary that cannot be written does
        // not change that.
        if let Err(error) = summary.write_json(file) {
            eprintln!("hmmctl: cannot write the summary: {error:#}");
        }
    }
    Ok(code)
}

/// Whether the caller may ask for and move the memory of any process.
pub(crate) fn may_move_memory_of_others() -> anyhow::Result<bool> {
    let sets = rustix::thread::capabilities(None).context("cannot read the own capabilities")?;
    Ok(sets.effective.contains(CapabilitySet::SYS_PTRACE))
}
