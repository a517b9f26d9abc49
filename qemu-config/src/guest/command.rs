// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Running a command in the guest.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use hmm_control::plan::PROGRAMS;
use hmm_control::{
    Exec, ExecError, ExitStatus, OutputStream, Report, Request, Root, Text, WindowSize,
};

use super::collected::Collected;
use super::event::Event;
use super::output::Stream;
use super::watch::Limit;
use super::{Guest, GuestErrorKind, Input, Result, infrastructure};

/// How long a command may go on after it was asked to end.
const GRACE: Duration = Duration::from_secs(5);
const SIGINT: i32 = 2;

/// A command for the guest.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory.
    pub cwd: PathBuf,
    /// Which root folder it sees.
    pub root: Root,
    /// A terminal of this size instead of three pipes: all output comes through standard output then.
    pub terminal: Option<WindowSize>,
    /// How long it may take.
    pub limit: Option<Duration>,
}

impl Command {
    /// A command that sees the guest's image only.
    pub fn new<T: Into<OsString>>(argv: impl IntoIterator<Item = T>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: vec![
                (
                    "PATH".into(),
                    format!("{PROGRAMS}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").into(),
                ),
                ("HOME".into(), "/root".into()),
            ],
            cwd: "/".into(),
            root: Root::Image,
            terminal: None,
            limit: None,
        }
    }
}

/// Where a command's streams go.
pub struct Streams {
    /// Standard input.
    pub stdin: Input,
    /// Standard output.
    pub stdout: Box<dyn Write + Send>,
    /// Standard error.
    pub stderr: Box<dyn Write + Send>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandEnd {
    /// It ran.
    Ended(ExitStatus),
    /// It could not be started.
    NotStarted {
        /// What kind of failure.
        error: ExecError,
        /// What the system said.
        message: String,
    },
}

impl CommandEnd {
    /// The code as a shell gives it.
    #[must_use]
    pub fn shell_code(&self) -> u8 {
        match self {
            Self::Ended(status) => status.shell_code(),
            Self::NotStarted { error, .. } => error.shell_code(),
        }
    }
}

/// What a command wrote, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// How it ended.
    pub end: CommandEnd,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// What happened so far.
#[derive(Default)]
struct State {
    end: Option<CommandEnd>,
    streams_done: usize,
    lost: Option<io::Error>,
    asked_to_end: bool,
}

impl Guest {
    /// Runs a command and waits until it has ended and all that it wrote has been handed on.
    ///
    /// # Errors
    /// When the guest fails, the command's limit is over, or a second interrupt arrives. A command that fails is no
    /// error.
    pub fn exec(&mut self, command: &Command, streams: Streams) -> Result<CommandEnd> {
        self.command += 1;
        let started = self
            .stdout
            .hand_to(streams.stdout, self.sender.clone())
            .and_then(|()| self.stderr.hand_to(streams.stderr, self.sender.clone()));
        started.map_err(|error| self.failed(infrastructure(error.to_string())))?;
        let result = self.run(command, streams.stdin);
        if result.is_err() {
            self.settle(2);
        }
        result
    }

    /// Runs a command with empty input and collects what it writes.
    ///
    /// # Errors
    /// As [`Guest::exec`].
    pub fn output(&mut self, command: &Command) -> Result<CommandOutput> {
        let (stdout, stderr) = (Collected::default(), Collected::default());
        let end = self.exec(
            command,
            Streams {
                stdin: Input::Empty,
                stdout: Box::new(stdout.clone()),
                stderr: Box::new(stderr.clone()),
            },
        )?;
        Ok(CommandOutput {
            end,
            stdout: stdout.take(),
            stderr: stderr.take(),
        })
    }

    fn run(&mut self, command: &Command, input: Input) -> Result<CommandEnd> {
        let mut limit = command.limit.map(|limit| Limit::new("the command", limit));
        self.send(&Request::Exec(Exec {
            argv: command.argv.iter().map(Text::from).collect(),
            env: command
                .env
                .iter()
                .map(|(name, value)| (Text::from(name), Text::from(value)))
                .collect(),
            cwd: Text::from(&command.cwd),
            root: command.root,
            terminal: command.terminal,
        }))?;
        let mut state = State::default();
        let mut input = Some(input);
        let mut input_open = true;
        let end = loop {
            let event = self.next(limit.as_ref())?;
            match event {
                Event::Report(Report::ExecReady) => {
                    if let Some(input) = input.take() {
                        self.stdin
                            .take_from(input, self.command, self.sender.clone())
                            .map_err(|error| self.failed(infrastructure(error.to_string())))?;
                    }
                }
                Event::InputEnd { command, total } if command == self.command => {
                    input_open = false;
                    self.send(&Request::InputEnd { total })?;
                }
                Event::Interrupt(signal) => {
                    if state.asked_to_end {
                        return Err(self.failed(GuestErrorKind::Interrupted.into()));
                    }
                    state.asked_to_end = true;
                    self.send(&Request::Signal { number: signal })?;
                    if signal != SIGINT {
                        limit = Some(Limit::interrupted(GRACE));
                    }
                }
                other => self.note(other, &mut state)?,
            }
            if state.streams_done == 2
                && let Some(end) = state.end.take()
            {
                break end;
            }
        };
        if let Some(error) = state.lost {
            return Err(self.failed(infrastructure(format!(
                "the command's output was lost: {error}"
            ))));
        }
        // The guest drops what is left of the input, so that the next command does not get it.
        let total = self.stdin.stop();
        if input_open {
            self.send(&Request::InputEnd { total })?;
        }
        Ok(end)
    }

    fn note(&mut self, event: Event, state: &mut State) -> Result<()> {
        match event {
            Event::Report(Report::ExecEnded {
                status,
                stdout_total,
                stderr_total,
            }) => {
                state.end = Some(CommandEnd::Ended(status));
                self.stdout.end_at(stdout_total);
                self.stderr.end_at(stderr_total);
            }
            Event::Report(Report::ExecFailed {
                error,
                message,
                stdout_total,
                stderr_total,
            }) => {
                state.end = Some(CommandEnd::NotStarted { error, message });
                self.stdout.end_at(stdout_total);
                self.stderr.end_at(stderr_total);
            }
            Event::Report(Report::InputClosed) => drop(self.stdin.stop()),
            Event::OutputClosed(stream) => {
                let stream = match stream {
                    Stream::Stdout => OutputStream::Stdout,
                    Stream::Stderr => OutputStream::Stderr,
                    Stream::Ktap => return Ok(()),
                };
                self.send(&Request::CloseOutput { stream })?;
            }
            Event::OutputDone(_, result) => {
                state.streams_done += 1;
                if let Err(error) = result {
                    state.lost = Some(error);
                }
            }
            Event::Resize(size) => self.send(&Request::Resize(size))?,
            _ => {}
        }
        Ok(())
    }
}
