// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Signals for this program become events of the guest.

use std::thread;

use anyhow::Context;
use hmm_vm::guest::{Interrupts, WindowSize};
use rustix::termios::tcgetwinsize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

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

/// The size of the terminal on standard input, if it is one.
pub(crate) fn terminal_size() -> Option<WindowSize> {
    let size = tcgetwinsize(std::io::stdin()).ok()?;
    Some(WindowSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}
