// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Signals for this program become events of the guest, or end what it has started.

use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Context;
use hmm_vm::guest::{Interrupts, WindowSize};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::termios::tcgetwinsize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

/// What a shell makes of a program that a signal ended, less the signal's number.
const EXIT_OF_SIGNAL: i32 = 128;

/// Takes the signals that ask for an end, and the one that tells of a new size of the terminal.
pub(crate) fn forward() -> anyhow::Result<Interrupts> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP, SIGWINCH]).context("cannot take signals")?;
    let interrupts = Interrupts::default();
    let told = interrupts.clone();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in &mut signals {
                match signal {
                    SIGWINCH => {
                        if let Some(size) = terminal_size() {
                            told.resized(size);
                        }
                    }
                    other => told.notify(other),
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(interrupts)
}

/// Ends what this program has started when it is asked to end itself, and then ends it as the signal would have.
#[derive(Clone, Default)]
pub(crate) struct Followers(Arc<Mutex<Option<Pid>>>);

impl Followers {
    /// Takes the signals, for as long as this program runs.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot take signals")?;
        let followers = Self::default();
        let watched = followers.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    if let Some(group) = *watched.slot() {
                        // All of it may be gone already.
                        let _ = kill_process_group(group, Signal::TERM);
                    }
                    std::process::exit(EXIT_OF_SIGNAL + signal);
                }
            })
            .context("cannot start a thread")?;
        Ok(followers)
    }

    /// `leader`, which leads a process group, and its group are to end with this program, until the result is dropped: before
    /// the leader is waited for, whose number may then be another's.
    pub(crate) fn include(&self, leader: &Child) -> Included<'_> {
        *self.slot() = i32::try_from(leader.id()).ok().and_then(Pid::from_raw);
        Included(self)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process group that ends with this program.
pub(crate) struct Included<'a>(&'a Followers);

impl Drop for Included<'_> {
    fn drop(&mut self) {
        *self.0.slot() = None;
    }
}

/// The size of the terminal on standard input, if it is one.
pub(crate) fn terminal_size() -> Option<WindowSize> {
    let size = tcgetwinsize(std::io::stdin()).ok()?;
    Some(WindowSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}
