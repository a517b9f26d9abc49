// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Allocations of the kernel that fail on command, one after the other.
//!
//! A kernel that is built to find bugs lets a thread say which of its next allocations, page tables and copies from and
//! to its memory is to fail. Trying one after the other until an operation gets through without a failure has met all
//! of them.

use super::symbols;
use crate::cases::case::skip;
use anyhow::{Context, Result, ensure};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::path::Path;

const COUNTER: &str = "/proc/thread-self/fail-nth";
const KINDS: [&str; 3] = ["failslab", "fail_page_alloc", "fail_usercopy"];
/// What must be off so that no kind of allocation is spared, and what would flood the console.
const SETTINGS: [(&str, &str); 4] = [
    ("ignore-gfp-wait", "N"),
    ("ignore-gfp-highmem", "N"),
    ("min-order", "0"),
    ("verbose", "0"),
];
/// How many callers of an allocation are looked at, which is the most that the kernel can.
const DEPTH: &str = "32";
/// No operation of a case has so many allocations.
const MOST: u32 = 50_000;
/// Operations in a row without a failure after which there is nothing left to fail. An allocation is not needed each
/// time: the kernel keeps some memory at hand.
const QUIET: u32 = 3;

/// Which allocations fail, where each try takes long and most are alike.
#[derive(Clone, Copy, Debug)]
pub(in crate::cases) enum Steps {
    /// One after the other.
    Every,
    /// One after the other at first, and then ever wider apart.
    Widening,
}

impl Steps {
    fn next(self, nth: u32) -> u32 {
        match self {
            Self::Every => nth + 1,
            Self::Widening => nth + 1 + nth / 8,
        }
    }
}

/// Failing allocations of the calling thread.
#[derive(Debug)]
pub(in crate::cases) struct Failing {
    counter: OwnedFd,
}

impl Failing {
    /// Prepares the kernel; a skip where it cannot.
    pub(in crate::cases) fn new() -> Result<Self> {
        let counter = match rustix::fs::open(COUNTER, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        {
            Ok(counter) => counter,
            Err(Errno::NOENT) => return Err(skip("the kernel has no failing allocations")),
            Err(errno) => return Err(errno).with_context(|| format!("cannot open {COUNTER}")),
        };
        for (name, value) in SETTINGS {
            set_of_all_kinds(name, value)?;
        }
        Ok(Self { counter })
    }

    /// Spares what a function of the kernel allocates, itself or through what it calls.
    pub(in crate::cases) fn sparing(self, function: &str) -> Result<Self> {
        let (start, end) = symbols::text_of(function)?;
        set_of_all_kinds("stacktrace-depth", DEPTH)?;
        set_of_all_kinds("reject-start", &start.to_string())?;
        set_of_all_kinds("reject-end", &end.to_string())?;
        Ok(self)
    }

    /// Lets the first allocation of `operation` fail, then the second, and so on as `Steps` has it, until it meets no
    /// failure any more. Before each `prepare` makes what the operation takes, and after each `check` sees what the
    /// operation made of it, both with nothing failing. Says how many failed.
    pub(in crate::cases) fn sweep<P, T>(
        &self,
        steps: Steps,
        mut prepare: impl FnMut() -> Result<P>,
        mut operation: impl FnMut(P) -> T,
        mut check: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let (mut nth, mut met, mut quiet) = (1, 0, 0);
        while quiet < QUIET {
            ensure!(nth < MOST, "more than {MOST} allocations");
            let prepared = prepare().context("before the next failure")?;
            self.set(nth)?;
            let result = operation(prepared);
            let failed = self.fired()?;
            check(result).with_context(|| match failed {
                true => format!("allocation {nth} failed"),
                false => format!("fewer than {nth} allocations, and none failed"),
            })?;
            if failed {
                met += 1;
                quiet = 0;
            } else {
                quiet += 1;
            }
            nth = steps.next(nth);
        }
        eprintln!("{met} failures, the last before allocation {nth}");
        ensure!(met > 0, "no allocation of the operation failed");
        Ok(())
    }

    /// The n-th from now fails; 0 for none.
    fn set(&self, nth: u32) -> Result<()> {
        let text = nth.to_string();
        loop {
            match rustix::io::write(&self.counter, text.as_bytes()) {
                Ok(_) => return Ok(()),
                // This was the copy that was to fail.
                Err(Errno::FAULT) => {}
                Err(errno) => return Err(errno).context("cannot choose an allocation to fail"),
            }
        }
    }

    /// Whether the failure has happened. Nothing fails from now on.
    fn fired(&self) -> Result<bool> {
        let mut text = [0; 16];
        let read = rustix::io::pread(&self.counter, &mut text, 0);
        let fired = match read {
            Ok(length) => text[..length].trim_ascii() == b"0",
            // Reading the counter has met it, and so the operation has not.
            Err(Errno::FAULT) => false,
            Err(errno) => return Err(errno).context("cannot read what failed"),
        };
        self.set(0)?;
        Ok(fired)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // The thread is about to end if this does not work.
        let _ = self.set(0);
        // The files were there a moment ago.
        let _ = set_of_all_kinds("reject-start", "0");
        let _ = set_of_all_kinds("reject-end", "0");
    }
}

/// Gives a setting a value wherever it is known.
fn set_of_all_kinds(name: &str, value: &str) -> Result<()> {
    for kind in KINDS {
        let file = Path::new("/sys/kernel/debug").join(kind).join(name);
        if file.exists() {
            fs::write(&file, value).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(())
}
