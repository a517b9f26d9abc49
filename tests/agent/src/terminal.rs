// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A terminal for a command.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use hmm_control::WindowSize;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Both ends of a terminal.
pub(crate) struct Terminal {
    /// Ours. It does not block.
    pub(crate) ours: OwnedFd,
    /// The command's.
    pub(crate) theirs: OwnedFd,
}

impl Terminal {
    pub(crate) fn open(size: WindowSize) -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).context("cannot open a terminal")?;
        grantpt(&ours).context("cannot grant the terminal")?;
        unlockpt(&ours).context("cannot unlock the terminal")?;
        let theirs =
            ioctl_tiocgptpeer(&ours, flags).context("cannot open the terminal's other end")?;
        rustix::io::ioctl_fionbio(&ours, true).context("cannot make the terminal non-blocking")?;
        resize(&ours, size)?;
        Ok(Self { ours, theirs })
    }
}

/// Gives the terminal another size; its processes get SIGWINCH.
pub(crate) fn resize(terminal: &OwnedFd, size: WindowSize) -> Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).context("cannot set the terminal's size")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_the_size_that_was_asked_for() {
        let terminal = Terminal::open(WindowSize {
            rows: 24,
            columns: 81,
        })
        .unwrap();
        let size = rustix::termios::tcgetwinsize(&terminal.theirs).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (24, 81));
        assert!(rustix::termios::isatty(&terminal.theirs));
    }
}
