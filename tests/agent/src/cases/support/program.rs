// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A process that becomes another program.

use super::process::{Child, fork};
use crate::cases::child;
use anyhow::{Context, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe, pipe_with};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// A child that runs `program`, this program or a copy of it, and does not end: it writes to a pipe that is full. It is
/// killed when the case forgets it.
#[derive(Debug)]
pub(in crate::cases) struct Program {
    /// The process.
    pub(in crate::cases) child: Child,
    _reader: OwnedFd,
}

impl Program {
    /// Forks, calls `before` in the child, and executes the program. Returns when the program has begun, or when the child
    /// has failed to begin it.
    pub(in crate::cases) fn run(
        program: &Path,
        before: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let (reader, writer) = full_pipe()?;
        // The kernel closes the other end of this one when it executes the program.
        let (begun, closed_by_exec) = pipe_with(PipeFlags::CLOEXEC)?;
        let child = fork(|| {
            before()?;
            let error = Command::new(program)
                .args([child::ARGUMENT, "no/such-case"])
                .stderr(File::from(writer.try_clone()?))
                .exec();
            Err(error).with_context(|| format!("cannot execute {}", program.display()))
        })?;
        drop(closed_by_exec);
        File::from(begun).read_to_end(&mut Vec::new())?;
        Ok(Self {
            child,
            _reader: reader,
        })
    }
}

/// A pipe without room for another byte.
fn full_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe().context("cannot make a pipe")?;
    let flags = rustix::fs::fcntl_getfl(&writer)?;
    rustix::fs::fcntl_setfl(&writer, flags | OFlags::NONBLOCK)?;
    for size in [4096, 1] {
        loop {
            match rustix::io::write(&writer, &[0; 4096][..size]) {
                Ok(_) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno).context("cannot fill a pipe"),
            }
        }
    }
    rustix::fs::fcntl_setfl(&writer, flags)?;
    Ok((reader, writer))
}
