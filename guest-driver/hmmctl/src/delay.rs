// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl delay`: makes rare races frequent. Kernel functions are delayed while a program runs; `docs/delays.md` says how.
//!
//! The delays belong to a file that this process has open, so they go when it ends, however it ends.

mod control;
mod groups;
mod hint;
mod list;
mod spec;

pub(crate) use spec::Delay;

use crate::cli;
use crate::run::{Program, Signals, exit_code};
use anyhow::{Context, bail};
use control::{Control, Refusal};
use hint::Symbols;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::process::ExitCode;

/// Lists delays, or holds them while a program runs or until a signal; the program's exit code.
pub(crate) fn delay(arguments: &cli::Delays) -> ExitCode {
    exit_code(try_delay(arguments))
}

fn try_delay(arguments: &cli::Delays) -> anyhow::Result<u8> {
    let mut control = Control::open()?;
    if arguments.list {
        list::print(&control.list()?, arguments.json)?;
        return Ok(0);
    }
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => random_seed()?,
    };
    let own = std::process::id().cast_signed();
    let of = match (&arguments.pid, arguments.command.is_empty()) {
        (Some(hmm_uapi::client::Process::Id(pid)), _) => Some(pid.get()),
        (_, false) => Some(own),
        (_, true) => None,
    };
    let added = add_all(&control, &arguments.delays, seed, of)?;
    if !arguments.quiet {
        eprintln!("delays: seed {seed}; {added} places");
    }
    let signals = Signals::block()?;
    let code = if arguments.command.is_empty() {
        signals.wait()?;
        0
    } else {
        // Orphans of the program become children of this process, and so are still delayed.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .context("cannot adopt orphans of the program")?;
        Program::start(&arguments.command, &signals)?.wait(&signals)?
    };
    if !arguments.quiet {
        eprintln!("delays: {}", Sum::of(&control.list()?, own));
    }
    Ok(code)
}

/// Adds what is asked for; the number of functions. One that is named must be there; of a group, one that can be delayed.
fn add_all(
    control: &Control,
    delays: &[Delay],
    seed: u64,
    of: Option<i32>,
) -> anyhow::Result<usize> {
    let mut symbols = Symbols::default();
    let mut added = 0;
    for delay in delays {
        let Some(functions) = groups::functions(&delay.name) else {
            let line = delay.line(&delay.name, None, seed, of);
            control
                .add(&line)
                .map_err(|refusal| refused(&delay.name, refusal, &mut symbols))?;
            added += 1;
            continue;
        };
        let mut left_out = Vec::new();
        let before = added;
        for function in functions {
            let line = delay.line(function.name, Some(function.place), seed, of);
            match control.add(&line) {
                Ok(()) => added += 1,
                Err(Refusal::Missing | Refusal::Forbidden) => left_out.push(function.name),
                Err(refusal) => return Err(refused(function.name, refusal, &mut symbols)),
            }
        }
        if added == before {
            bail!("no function of the group '{}' can be delayed", delay.name);
        }
        if !left_out.is_empty() {
            eprintln!(
                "hmmctl: '{}' without {}, which this kernel does not let be delayed",
                delay.name,
                left_out.join(", ")
            );
        }
    }
    Ok(added)
}

fn refused(function: &str, refusal: Refusal, symbols: &mut Symbols) -> anyhow::Error {
    let error = anyhow::anyhow!("cannot delay {function}: {refusal}");
    match refusal {
        Refusal::Missing => match symbols.hint(function) {
            Some(hint) => anyhow::anyhow!("{error}; {hint}"),
            None => error,
        },
        _ => error,
    }
}

fn random_seed() -> anyhow::Result<u64> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot choose a seed")?;
    Ok(u32::from_ne_bytes(bytes).into())
}

/// What the delays of one process came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    calls: u64,
    delays: u64,
    micros: u64,
    spared: u64,
    missed: u64,
}

impl Sum {
    fn of(entries: &[control::Entry], owner: i32) -> Self {
        let mut sum = Self::default();
        for entry in entries.iter().filter(|entry| entry.owner == owner) {
            sum.calls = sum.calls.saturating_add(entry.calls);
            sum.delays = sum.delays.saturating_add(entry.delays);
            sum.micros = sum.micros.saturating_add(entry.micros);
            sum.spared = sum.spared.saturating_add(entry.spared);
            sum.missed = sum.missed.saturating_add(entry.missed);
        }
        sum
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls, {} delayed, {:.3} ms in all; {} spared, {} missed",
            self.calls,
            self.delays,
            self.micros as f64 / 1000.0,
            self.spared,
            self.missed
        )
    }
}
