// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl record`: runs a program and writes down what the driver does meanwhile, and where the program's memory is.
//!
//! The recording is the text of the kernel's trace, in a trace instance of its own, so that no other use of the trace is
//! disturbed. Looks at the memory are marks in the trace: they have its clock. `cargo xtask report` reads it, and
//! `ci/report/src/recording.rs` says what its lines mean.

mod instance;
mod looks;

use crate::cli;
use crate::debugfs;
use crate::run::{Program, Signals, exit_code, may_move_memory_of_others};
use crate::top::named;
use anyhow::{Context, bail};
use hmm_uapi::client::Device;
use instance::Instance;
use looks::Looks;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Runs and records a program; the program's exit code.
pub(crate) fn record(node: &Path, arguments: &cli::Record) -> ExitCode {
    exit_code(try_record(node, arguments))
}

fn try_record(node: &Path, arguments: &cli::Record) -> anyhow::Result<u8> {
    // Everything that can fail is tried before the program starts.
    let device = Device::open(node)?;
    if !may_move_memory_of_others()? {
        bail!("recording takes root: CAP_SYS_PTRACE and access to the kernel's trace");
    }
    let path = &arguments.output;
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut file = BufWriter::new(file);
    let command: Vec<_> = (arguments.command.iter())
        .map(|word| word.to_string_lossy().replace(char::is_control, "?"))
        .collect();
    writeln!(file, "# hmm-record 1\n# command {}", command.join(" "))?;
    writeln!(file, "# memory_bytes {}", device.info()?.memory_bytes)?;

    let instance = Instance::create(arguments.buffer)?;
    let before = counters(&device, node)?;
    let signals = Signals::block()?;
    instance.start()?;
    let program = Program::start(&arguments.command, &signals)?;
    let mut looks = Looks::new(&device, instance.marker()?, program.id());
    let is_over = AtomicBool::new(false);
    let (code, looked, written) = thread::scope(|scope| {
        let looked = scope.spawn(|| looks.until(&is_over, arguments.interval));
        let written = scope.spawn(|| instance.copy_to(&mut file, arguments.events, &is_over));
        let code = program.wait(&signals);
        is_over.store(true, Ordering::Release);
        looked.thread().unpark();
        written.thread().unpark();
        (code, looked.join(), written.join())
    });
    let code = code?;
    // The exit code says how the program ended; a recording that is not complete does not change that.
    for (what, result) in [("look at memory", looked), ("write the events", written)] {
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("hmmctl: the recording is not complete: {error:#}"),
            Err(_) => bail!("the thread that is to {what} has panicked"),
        }
    }
    // A device that went away meanwhile has no counters any more.
    if let Ok(after) = counters(&device, node) {
        for (name, count) in after {
            let grown = count.saturating_sub(before.get(&name).copied().unwrap_or(0));
            writeln!(file, "# counter {name} {grown}")?;
        }
    }
    for (step, lines) in debugfs::times(node) {
        for line in lines.lines() {
            writeln!(file, "# time {step} {line}")?;
        }
    }
    (file.flush()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(code)
}

fn counters(device: &Device, node: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut counters = named(&device.stats()?);
    counters.extend(debugfs::counters(node));
    // This one does not only grow.
    counters.remove("resident_bytes");
    Ok(counters)
}
