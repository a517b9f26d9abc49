// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program that is run: its start, the signals that are meant for it, and its end.

use super::signals::Signals;
use anyhow::Context;
use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid,
};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

/// The command could not be started.
#[derive(Debug)]
pub(crate) struct StartError {
    command: OsString,
    cause: io::Error,
}

impl StartError {
    /// 127 if the command was not found, else 126, as with env(1).
    pub(super) fn exit_code(&self) -> u8 {
        if self.cause.kind() == io::ErrorKind::NotFound {
            127
        } else {
            126
        }
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "cannot run '{}': {}",
            self.command.to_string_lossy(),
            self.cause
        )
    }
}

impl std::error::Error for StartError {}

/// A running program.
#[derive(Debug)]
pub(crate) struct Program {
    pid: Pid,
    handle: OwnedFd,
}

impl Program {
    /// Starts the command, which takes over standard input, output and error, and the signal mask
    /// that hmmctl was started with.
    pub(crate) fn start(command: &[OsString], signals: &Signals) -> anyhow::Result<Self> {
        let (name, _) = command.split_first().context("no command")?;
        let pid = spawn(command, signals.original_mask()).map_err(|cause| StartError {
            command: name.clone(),
            cause,
        })?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).context("cannot open a pidfd")?;
        Ok(Self { pid, handle })
    }

    /// The program's process id.
    pub(crate) fn id(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    /// Waits for the program's end and meanwhile forwards signals; the exit code with which hmmctl
    /// ends.
    pub(crate) fn wait(self, signals: &Signals) -> anyhow::Result<u8> {
        loop {
            let mut events = [
                PollFd::new(&self.handle, PollFlags::IN),
                PollFd::new(signals.file(), PollFlags::IN),
            ];
            match poll(&mut events, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno).context("cannot wait for the program"),
            }
            let ended = !events[0].revents().is_empty();
            while let Some(signal) = signals.next_for_program()? {
                // The only error left is that the program has just ended, which is no error.
                let _ = pidfd_send_signal(&self.handle, signal);
            }
            if ended {
                let status = waitid(WaitId::PidFd(self.handle.as_fd()), WaitIdOptions::EXITED)
                    .context("cannot wait for the program")?
                    .context("the program has ended and has no status")?;
                return Ok(exit_code(&status));
            }
        }
    }
}

/// Starts a command. `std::process` is no help here: it hands the blocked signals on to the child.
fn spawn(command: &[OsString], mask: &SigSet) -> io::Result<Pid> {
    let arguments = command
        .iter()
        .map(|argument| c_string(argument))
        .collect::<io::Result<Vec<_>>>()?;
    let environment = std::env::vars_os()
        .map(|(name, value)| c_string(&[name, value].join(OsStr::new("="))))
        .collect::<io::Result<Vec<_>>>()?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    attributes.set_sigmask(mask)?;
    // Rust's runtime ignores SIGPIPE, and an ignored signal stays ignored in the program.
    attributes.set_sigdefault(&SigSet::from(Signal::SIGPIPE))?;
    let files = PosixSpawnFileActions::init()?;
    let pid = posix_spawnp(&arguments[0], &files, &attributes, &arguments, &environment)?;
    Pid::from_raw(pid.as_raw()).ok_or_else(|| io::Error::from(Errno::ESRCH))
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    // Arguments and environment come from the kernel and have no NUL inside.
    CString::new(text.as_bytes()).map_err(io::Error::from)
}

/// The program's exit code, or 128 + N if signal N ended it.
fn exit_code(status: &WaitIdStatus) -> u8 {
    let code = match status.exit_status() {
        Some(code) => code,
        None => 128 + status.terminating_signal().unwrap_or(0),
    };
    // Codes are bytes, and signals go up to 64.
    code as u8
}

#[cfg(test)]
mod tests {
    use super::{Program, Signals, StartError};
    use nix::sys::signal::{Signal, kill, raise};
    use nix::unistd::Pid;
    use std::ffi::OsString;

    fn code_of(command: &[&str]) -> u8 {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        let signals = Signals::block().unwrap();
        Program::start(&command, &signals)
            .unwrap()
            .wait(&signals)
            .unwrap()
    }

    fn start_error(command: &str) -> StartError {
        let signals = Signals::block().unwrap();
        Program::start(&[command.into()], &signals)
            .unwrap_err()
            .downcast()
            .unwrap()
    }

    #[test]
    fn the_exit_code_is_the_programs() {
        assert_eq!(code_of(&["true"]), 0);
        assert_eq!(code_of(&["sh", "-c", "exit 7"]), 7);
        assert_eq!(code_of(&["sh", "-c", "exit 255"]), 255);
    }

    #[test]
    fn the_end_by_a_signal_is_128_and_its_number() {
        assert_eq!(code_of(&["sh", "-c", "kill -KILL $$"]), 137);
        assert_eq!(code_of(&["sh", "-c", "kill -TERM $$"]), 143);
    }

    #[test]
    fn a_command_that_cannot_start_has_the_codes_of_env() {
        assert_eq!(start_error("/does/not/exist").exit_code(), 127);
        assert_eq!(start_error("no-such-command-anywhere").exit_code(), 127);
        assert_eq!(start_error("/etc/passwd").exit_code(), 126);
        assert_eq!(start_error("/").exit_code(), 126);
    }

    #[test]
    fn signals_to_hmmctl_reach_the_program() {
        let signals = Signals::block().unwrap();
        // The shell answers on its own exit code, so nothing here depends on time.
        let script = "trap 'exit 42' USR1; while :; do sleep 0.01; done";
        let command: Vec<OsString> = ["sh", "-c", script].map(OsString::from).into();
        let program = Program::start(&command, &signals).unwrap();
        let id = Pid::from_raw(program.id());
        // A signal before the trap is set would end the shell; signal 0 only asks.
        while !traps_usr1(program.id()) {
            kill(id, None).unwrap();
        }
        raise(Signal::SIGUSR1).unwrap();
        assert_eq!(program.wait(&signals).unwrap(), 42);
    }

    #[test]
    fn the_program_gets_no_signal_blocked_or_ignored() {
        let signals = Signals::block().unwrap();
        let command: Vec<OsString> = ["sleep", "60"].map(OsString::from).into();
        let program = Program::start(&command, &signals).unwrap();
        // The two signals above 31 that the C library keeps for itself are its own affair.
        let of_program = |line| signal_set(program.id(), line) & 0x7fff_ffff;
        assert_eq!(of_program("SigBlk:"), 0);
        // Signals that were ignored when the test began stay so, but for SIGPIPE, which Rust ignores.
        let own = signal_set(std::process::id() as i32, "SigIgn:") & 0x7fff_ffff;
        let inherited = own & !(1 << (Signal::SIGPIPE as u32 - 1));
        assert_eq!(of_program("SigIgn:"), inherited);
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(program.wait(&signals).unwrap(), 143);
    }

    fn traps_usr1(pid: i32) -> bool {
        signal_set(pid, "SigCgt:") & (1 << (Signal::SIGUSR1 as u32 - 1)) != 0
    }

    fn signal_set(pid: i32, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let set = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        u64::from_str_radix(set.trim(), 16).unwrap()
    }
}
