// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Allocations of the driver that fail on command, whichever thread makes them: its workers and what else the kernel runs
//! for it.
//!
//! The kernel lets an allocation fail that has a function of the driver among its callers, once so much has been
//! allocated that way. Raising that amount from nothing, until an operation gets through without a failure, meets one
//! allocation after the other.

use crate::cases::case::skip;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// What fails, and by how much its amount grows from one try to the next.
#[derive(Clone, Copy, Debug)]
pub(in crate::cases) enum Kind {
    /// Objects; the amount is in bytes. The smallest object has 8, most have several hundred.
    Objects,
    /// Objects of a KiB and more, each of which is met at least once.
    LargeObjects,
    /// Pages; the amount is in pages.
    Pages,
}

impl Kind {
    fn folder(self) -> PathBuf {
        Path::new("/sys/kernel/debug").join(match self {
            Self::Objects | Self::LargeObjects => "failslab",
            Self::Pages => "fail_page_alloc",
        })
    }

    fn step(self) -> u32 {
        match self {
            Self::Objects => 96,
            Self::LargeObjects => 1024,
            Self::Pages => 1,
        }
    }
}

/// Tries in a row without a failure after which there is nothing left to fail.
const QUIET: u32 = 3;
/// No operation of a case allocates so often.
const MOST: u32 = 2000;

/// Lets allocations of the driver fail one after the other while `operation` runs; `check` looks at each outcome with
/// nothing failing. Says how many failed.
pub(in crate::cases) fn sweep<T>(
    kind: Kind,
    mut prepare: impl FnMut() -> Result<()>,
    mut operation: impl FnMut() -> T,
    mut check: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let settings = Settings::new(kind)?;
    let (mut tries, mut met, mut quiet) = (0, 0, 0);
    while quiet < QUIET {
        ensure!(tries < MOST, "more than {MOST} allocations");
        prepare().context("before the next failure")?;
        settings.set("space", &(tries * kind.step()).to_string())?;
        settings.set("times", "1")?;
        settings.set("probability", "100")?;
        let result = operation();
        settings.set("probability", "0")?;
        let failed = settings.get("times")?.trim() == "0";
        check(result).with_context(|| format!("try {tries} of {kind:?}, failed: {failed}"))?;
        tries += 1;
        if failed {
            met += 1;
            quiet = 0;
        } else {
            quiet += 1;
        }
    }
    eprintln!("{met} failures of {kind:?}");
    ensure!(met > 0, "no allocation of the driver failed");
    Ok(())
}

/// Lets all allocations of the driver fail while `operation` runs.
pub(in crate::cases) fn while_all_fail<T>(kind: Kind, operation: impl FnOnce() -> T) -> Result<T> {
    let settings = Settings::new(kind)?;
    settings.set("space", "0")?;
    settings.set("times", "-1")?;
    settings.set("probability", "100")?;
    let result = operation();
    settings.set("probability", "0")?;
    Ok(result)
}

/// What the kernel is told of allocations that fail: nothing does yet, and what does will be the driver's.
///
/// Dropping it undoes the choice by caller, which others do not make, and lets nothing fail any more.
struct Settings {
    folder: PathBuf,
}

impl Settings {
    fn new(kind: Kind) -> Result<Self> {
        let folder = kind.folder();
        if !folder.join("require-start").exists() {
            return Err(skip("the kernel has no failing allocations"));
        }
        let settings = Self { folder };
        let (start, end) = text_of_driver()?;
        for (name, value) in [
            ("probability", "0"),
            ("ignore-gfp-wait", "N"),
            ("verbose", "0"),
            ("interval", "1"),
            ("task-filter", "N"),
            ("stacktrace-depth", "32"),
            ("require-start", &format!("{start:#x}")),
            ("require-end", &format!("{end:#x}")),
        ] {
            settings.set(name, value)?;
        }
        if matches!(kind, Kind::Pages) {
            settings.set("min-order", "0")?;
            settings.set("ignore-gfp-highmem", "N")?;
        }
        Ok(settings)
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        let file = self.folder.join(name);
        fs::write(&file, value).with_context(|| format!("cannot write {}", file.display()))
    }

    fn get(&self, name: &str) -> Result<String> {
        let file = self.folder.join(name);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        let all = u64::MAX.to_string();
        for (name, value) in [
            ("probability", "0"),
            ("require-start", "0"),
            ("require-end", &all),
        ] {
            // The files were there a moment ago.
            let _ = self.set(name, value);
        }
    }
}

/// The addresses of the driver's code.
fn text_of_driver() -> Result<(u64, u64)> {
    let modules = fs::read_to_string("/proc/modules").context("cannot list the modules")?;
    let line = (modules.lines())
        .find(|line| line.starts_with("virtio_hmm "))
        .context("the driver is not among the modules")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let address = words.get(5).and_then(|word| word.strip_prefix("0x"));
    let start = u64::from_str_radix(address.context("a module without an address")?, 16)?;
    let size: u64 = (words.get(1).context("a module without a size")?).parse()?;
    ensure!(start != 0, "the kernel does not tell the driver's address");
    Ok((start, start + size))
}
