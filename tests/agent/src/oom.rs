// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which process the kernel ends when memory runs out: a command or a case, and never the one that serves the host.

use std::ffi::CStr;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Result, write};

const SCORE: &CStr = c"/proc/self/oom_score_adj";

/// Spares the calling process, and what it starts.
pub(crate) fn spare() -> Result<()> {
    set(b"-1000")
}

/// Spares the calling process no longer. It allocates no memory and takes no lock.
pub(crate) fn do_not_spare() -> Result<()> {
    set(b"0")
}

fn set(score: &[u8]) -> Result<()> {
    let file = open(SCORE, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write(&file, score)?;
    Ok(())
}
