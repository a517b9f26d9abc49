// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The three streams of a command: pipes, or one terminal.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use hmm_control::WindowSize;
use rustix::fs::{Mode, OFlags, fchmod};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::input::Sink;
use crate::terminal::Terminal;

/// A command may change its user and then open `/dev/stdout`, as it can where its streams are files or a terminal of that user.
const EVERY_USER: Mode = Mode::from_raw_mode(0o666);

/// The command's ends of its streams and our own.
pub(super) struct Streams {
    pub(super) theirs: [OwnedFd; 3],
    pub(super) sink: Sink,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) terminal: Option<OwnedFd>,
}

impl Streams {
    pub(super) fn new(size: Option<WindowSize>) -> Result<Self> {
        match size {
            Some(size) => Self::terminal(size),
            None => Self::pipes(),
        }
    }

    fn pipes() -> Result<Self> {
        let make = || pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe");
        let (stdin, sink) = make()?;
        let (stdout, their_stdout) = make()?;
        let (stderr, their_stderr) = make()?;
        // Only our own ends: a program does not expect its pipes to be non-blocking.
        for ours in [&sink, &stdout, &stderr] {
            rustix::fs::fcntl_setfl(ours, OFlags::NONBLOCK)
                .context("cannot make a pipe non-blocking")?;
            for_every_user(ours)?;
        }
        Ok(Self {
            theirs: [stdin, their_stdout, their_stderr],
            sink: Sink::Pipe(sink),
            stdout,
            stderr,
            terminal: None,
        })
    }

    fn terminal(size: WindowSize) -> Result<Self> {
        let Terminal { ours, theirs } = Terminal::open(size)?;
        for_every_user(&theirs)?;
        let clone = |fd: &OwnedFd| fd.try_clone().context("cannot clone a terminal's end");
        // All output comes through the terminal; the stream for errors ends at once.
        let (stderr, _) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).context("cannot make a pipe")?;
        Ok(Self {
            theirs: [clone(&theirs)?, clone(&theirs)?, theirs],
            sink: Sink::Terminal(clone(&ours)?),
            stdout: clone(&ours)?,
            stderr,
            terminal: Some(ours),
        })
    }
}

/// Lets every user open a stream by its path. Both ends of a pipe are one file.
fn for_every_user(stream: impl AsFd) -> Result<()> {
    fchmod(stream, EVERY_USER).context("cannot let every user open the command's streams")
}
