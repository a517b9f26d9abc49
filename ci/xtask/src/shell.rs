// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask shell`: a prompt in the guest.

use std::ffi::OsString;
use std::process::ExitCode;

use hmm_vm::Progress;
use hmm_vm::guest::WindowSize;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use crate::guest_arguments::GuestArguments;
use crate::run::{FilesArguments, boot, own_streams, passed_on};
use crate::{build, signals};

/// What a terminal is taken for that does not say how large it is.
const DEFAULT_SIZE: WindowSize = WindowSize {
    rows: 24,
    columns: 80,
};
/// The shell of a user who has not chosen one.
const DEFAULT_SHELL: &str = "/bin/sh";

/// Arguments of `shell`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    guest: GuestArguments,
    #[command(flatten)]
    files: FilesArguments,
    /// What to run instead of the caller's shell.
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// Runs the shell until it ends.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let artifacts = build::artifacts(&arguments.guest.setup, &Progress::new())?;
    // From here on, a Ctrl-C is the guest's.
    let interrupts = signals::forward()?;
    let mut spec = arguments.guest.spec("shell", &interrupts)?;
    let argv = if arguments.command.is_empty() {
        vec![std::env::var_os("SHELL").unwrap_or_else(|| DEFAULT_SHELL.into())]
    } else {
        arguments.command.clone()
    };
    let mut command = (arguments.files).command(&argv, &[], arguments.guest.timeout, &mut spec)?;
    let mut guest = boot(&artifacts, &spec, false)?;
    let end = if isatty(std::io::stdin()) && isatty(std::io::stdout()) {
        command.terminal = Some(signals::terminal_size().unwrap_or(DEFAULT_SIZE));
        let _raw = RawTerminal::enter()?;
        guest.exec(&command, own_streams()?)?
    } else {
        // Commands from a pipe or a file: the shell sees that it is not on a terminal.
        guest.exec(&command, own_streams()?)?
    };
    if arguments.guest.keep {
        eprintln!("logs: {}", guest.folder().display());
    }
    Ok(passed_on(&end))
}

/// The terminal of standard input without any meaning of its own: every key goes to the guest's terminal. It is as it
/// was when the value is dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> rustix::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
    }
}
