// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Running a command for the host.

mod pid_namespace;
mod start;
mod streams;

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use hmm_control::{Exec, ExecError, ExitStatus, OutputStream, Report, WindowSize};
use rustix::process::{Pid, Signal, kill_process_group};

pub(crate) use pid_namespace::{ARGUMENT as FIRST_PROCESS, run_first_process};
use start::{NotStarted, Started, start};
use streams::Streams;

use crate::host;
use crate::input::InputPort;
use crate::output::{Closer, Output, OutputPort};
use crate::terminal::resize;

/// Runs one command after the other.
pub(crate) struct Runner {
    pub(crate) stdin: InputPort,
    pub(crate) stdout: OutputPort,
    pub(crate) stderr: OutputPort,
    running: Mutex<Option<Running>>,
}

/// What other threads may do to the command that runs.
struct Running {
    group: Pid,
    stdout: Closer,
    stderr: Closer,
    terminal: Option<OwnedFd>,
}

impl Runner {
    pub(crate) fn new(stdin: InputPort, stdout: OutputPort, stderr: OutputPort) -> Self {
        Self {
            stdin,
            stdout,
            stderr,
            running: Mutex::new(None),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a command to its end and tells the host about it.
    pub(crate) fn run(&self, exec: Exec) -> Result<()> {
        let outcome = match Streams::new(exec.terminal) {
            Ok(streams) => self.run_with(exec, streams)?,
            Err(error) => Err(NotStarted {
                error: ExecError::Other,
                message: format!("{error:#}"),
            }),
        };
        self.stdin.stop();
        let (stdout_total, stderr_total) = (self.stdout.total(), self.stderr.total());
        host::report(&match outcome {
            Ok(status) => Report::ExecEnded {
                status,
                stdout_total,
                stderr_total,
            },
            Err(NotStarted { error, message }) => Report::ExecFailed {
                error,
                message,
                stdout_total,
                stderr_total,
            },
        })
    }

    fn run_with(&self, exec: Exec, streams: Streams) -> Result<Result<ExitStatus, NotStarted>> {
        self.stdin.begin(streams.sink);
        host::report(&Report::ExecReady)?;
        // A signal that comes while the command starts waits for it.
        let mut running = self.running();
        let Started {
            mut child,
            namespace,
        } = match start(exec, streams.theirs) {
            Ok(started) => started,
            Err(not_started) => return Ok(Err(not_started)),
        };
        let stdout = Output::start(streams.stdout, self.stdout.clone())?;
        let stderr = Output::start(streams.stderr, self.stderr.clone())?;
        *running = Some(Running {
            group: Pid::from_child(&child),
            stdout: stdout.closer(),
            stderr: stderr.closer(),
            terminal: streams.terminal,
        });
        drop(running);
        let status = child.wait();
        *self.running() = None;
        stdout.finish();
        stderr.finish();
        // Processes that the command left behind end when their output has no reader any more.
        drop(namespace);
        let status = status.context("cannot wait for the command")?;
        let ended = status
            .code()
            .map(ExitStatus::Code)
            .or_else(|| status.signal().map(ExitStatus::Signal));
        ended
            .map(Ok)
            .ok_or_else(|| anyhow!("the command ended neither by itself nor by a signal"))
    }

    /// Sends a signal to the command and its children. Without a command there is nothing to do.
    pub(crate) fn signal(&self, number: i32) {
        if let (Some(running), Some(signal)) = (&*self.running(), Signal::from_named_raw(number)) {
            // The group may have gone this moment.
            let _ = kill_process_group(running.group, signal);
        }
    }

    /// Closes our end of an output.
    pub(crate) fn close_output(&self, stream: OutputStream) {
        if let Some(running) = &*self.running() {
            match stream {
                OutputStream::Stdout => running.stdout.close(),
                OutputStream::Stderr => running.stderr.close(),
            }
        }
    }

    /// Gives the command's terminal another size.
    pub(crate) fn resize(&self, size: WindowSize) {
        if let Some(Running {
            terminal: Some(terminal),
            ..
        }) = &*self.running()
            && let Err(error) = resize(terminal, size)
        {
            tracing::warn!("{error:#}");
        }
    }
}
