// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel allocated and forgot, on a kernel that keeps account of it.
//!
//! The kernel says on the console how many leaks it has found, which fails the boot; what they are is written below
//! that.

use super::support::{driver, kernel};
use anyhow::{Context, Result};
use std::fs;
use std::io::Write;
use std::time::Duration;

/// The kernel does not report what is younger than five seconds.
const AGE: Duration = Duration::from_secs(6);
/// Lines of the list that are shown: the first few leaks, whole.
const SHOWN_LINES: usize = 200;

/// Looks for leaks, if the kernel can and the guest is about the driver: of all that ran since the boot, with the driver gone, so that nothing counts as
/// in use because the driver still knows it.
pub(super) fn look() -> Result<()> {
    if kernel::is_debug() && driver::is_planned() {
        scan()?;
    }
    Ok(())
}

/// Scans, and writes what was found to the kernel's log.
pub(super) fn scan() -> Result<()> {
    let was_loaded = driver::is_loaded();
    if was_loaded {
        driver::unload().context("cannot remove the module to look for leaks")?;
    }
    std::thread::sleep(AGE);
    // The first scan learns what everything looks like, and the second reports what is in no use and has not changed.
    for _ in 0..2 {
        fs::write(kernel::LEAKS, "scan").context("cannot scan for leaks")?;
    }
    let found = fs::read_to_string(kernel::LEAKS).context("cannot read the list of leaks")?;
    let mut log = fs::OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .context("cannot write to the kernel's log")?;
    for line in found.lines().take(SHOWN_LINES) {
        // One write is one line of the log.
        log.write_all(format!("hmm-agent: {line}\n").as_bytes())
            .context("cannot write to the kernel's log")?;
    }
    if was_loaded {
        driver::load()?;
    }
    Ok(())
}
