// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The module's file, `/dev/hmm_delays`: a write adds a delay, a read lists all delays, and closing it removes its own.

use anyhow::{Context, bail};
use rustix::io::Errno;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use thiserror::Error;

const NODE: &str = "/dev/hmm_delays";

/// Why a function is not delayed.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    /// No symbol of the kernel has this name.
    #[error("the running kernel has no such function, or the compiler inlined it")]
    Missing,
    /// Probes are not allowed there.
    #[error("the kernel forbids probes in it (/sys/kernel/debug/kprobes/blacklist)")]
    Forbidden,
    /// `CONFIG_KPROBES` is not set.
    #[error("this kernel has no kprobes (CONFIG_KPROBES)")]
    NoProbes,
    /// The process is not there.
    #[error("there is no such process")]
    NoProcess,
    /// One command has too many.
    #[error("these are more delays than one command may have")]
    TooMany,
    /// Anything else.
    #[error("{0}")]
    Other(io::Error),
}

/// A delay that is in force.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) function: String,
    pub(super) at: String,
    /// Microseconds.
    pub(super) min: u64,
    pub(super) max: u64,
    /// Of a million.
    pub(super) chance: u64,
    pub(super) shape: String,
    pub(super) seed: u64,
    /// The process that it is for, with its descendants; 0: all tasks.
    pub(super) of: i32,
    /// The process that added it.
    pub(super) owner: i32,
    pub(super) calls: u64,
    pub(super) delays: u64,
    /// Microseconds of all delays.
    pub(super) micros: u64,
    /// Delays that a processor's share of time did not allow.
    pub(super) spared: u64,
    /// Calls that the kernel did not report.
    pub(super) missed: u64,
}

impl Entry {
    /// Reads a line of the file. Names that are not known are passed over.
    fn parse(line: &str) -> Option<Self> {
        let (function, rest) = line.split_once(' ')?;
        let values: BTreeMap<&str, &str> = (rest.split(' '))
            .filter_map(|part| part.split_once('='))
            .collect();
        let number = |name| values.get(name)?.parse::<u64>().ok();
        let process = |name| values.get(name)?.parse::<i32>().ok();
        let text = |name| values.get(name).map(|text| (*text).to_owned());
        Some(Self {
            function: function.to_owned(),
            at: text("at")?,
            min: number("min")?,
            max: number("max")?,
            chance: number("chance")?,
            shape: text("shape")?,
            seed: number("seed")?,
            of: process("of")?,
            owner: process("owner")?,
            calls: number("calls")?,
            delays: number("delays")?,
            micros: number("micros")?,
            spared: number("spared")?,
            missed: number("missed")?,
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            function,
            at,
            min,
            max,
            ..
        } = self;
        let percent = self.chance as f64 / 10_000.0;
        write!(
            f,
            "{function} {at} {min}..{max} us {percent} % {}",
            self.shape
        )?;
        match self.of {
            0 => write!(f, " everyone")?,
            pid => write!(f, " of {pid}")?,
        }
        write!(
            f,
            " (by {}): {} calls, {} delayed, {} us",
            self.owner, self.calls, self.delays, self.micros
        )
    }
}

/// The open file. The delays go when it is closed.
#[derive(Debug)]
pub(super) struct Control {
    file: File,
}

impl Control {
    pub(super) fn open() -> anyhow::Result<Self> {
        match OpenOptions::new().read(true).write(true).open(NODE) {
            Ok(file) => Ok(Self { file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!(
                    "there is no {NODE}: load hmm_delays.ko (docs/delays.md); a kernel without kprobes (CONFIG_KPROBES) cannot have it"
                )
            }
            Err(error) => Err(error).with_context(|| format!("cannot open {NODE}")),
        }
    }

    pub(super) fn add(&self, line: &str) -> Result<(), Refusal> {
        // One write is one delay.
        rustix::io::write(&self.file, line.as_bytes())
            .map(drop)
            .map_err(|errno| match errno {
                Errno::NOENT => Refusal::Missing,
                Errno::PERM => Refusal::Forbidden,
                Errno::OPNOTSUPP => Refusal::NoProbes,
                Errno::SRCH => Refusal::NoProcess,
                Errno::NOSPC => Refusal::TooMany,
                errno => Refusal::Other(errno.into()),
            })
    }

    /// All delays that are in force, of all processes.
    pub(super) fn list(&mut self) -> anyhow::Result<Vec<Entry>> {
        let mut text = String::new();
        (self.file.rewind())
            .and_then(|()| self.file.read_to_string(&mut text))
            .with_context(|| format!("cannot read {NODE}"))?;
        (text.lines())
            .map(|line| Entry::parse(line).with_context(|| format!("{NODE} says '{line}'")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Entry;

    const LINE: &str = "folio_unlock at=return min=20 max=500 chance=25000 shape=log seed=9 of=12 \
                        owner=12 calls=100 delays=3 micros=77 spared=1 missed=2";

    #[test]
    fn a_line_is_read() {
        let entry = Entry::parse(LINE).unwrap();
        assert_eq!((entry.function.as_str(), entry.of), ("folio_unlock", 12));
        assert_eq!((entry.calls, entry.delays, entry.micros), (100, 3, 77));
        assert_eq!(
            entry.to_string(),
            "folio_unlock return 20..500 us 2.5 % log of 12 (by 12): 100 calls, 3 delayed, 77 us"
        );
        // A later version of the module may say more.
        assert_eq!(Entry::parse(&format!("{LINE} more=1")), Some(entry));
        assert_eq!(Entry::parse("folio_unlock at=return"), None);
    }
}
