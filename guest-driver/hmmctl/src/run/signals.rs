// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Signals that are sent to hmmctl and meant for the program.

use anyhow::Context;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};

/// Signals that are passed on. Those of job control are left alone: the terminal sends them to the
/// whole process group, and they must stop hmmctl too.
const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// The signals that are forwarded: blocked in this thread and in those it starts, and read from a
/// file instead.
#[derive(Debug)]
pub(crate) struct Signals {
    file: SignalFd,
    original_mask: SigSet,
}

impl Signals {
    /// Blocks the signals.
    pub(crate) fn block() -> anyhow::Result<Self> {
        let set: SigSet = FORWARDED.into_iter().collect();
        let original_mask = set
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .context("cannot block signals")?;
        let file = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("cannot open a signalfd")?;
        Ok(Self {
            file,
            original_mask,
        })
    }

    /// The mask from before.
    pub(super) fn original_mask(&self) -> &SigSet {
        &self.original_mask
    }

    /// The file that becomes readable when a signal is there.
    pub(super) fn file(&self) -> &SignalFd {
        &self.file
    }

    /// Waits until one of the signals is there.
    pub(crate) fn wait(&self) -> anyhow::Result<()> {
        loop {
            let mut events = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut events, None) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno).context("cannot wait for a signal"),
            }
        }
    }

    /// The next signal that is to be forwarded, if one is there. Those that the kernel sent are
    /// not: a terminal's signals go to the whole process group, so the program already has them.
    pub(super) fn next_for_program(&self) -> anyhow::Result<Option<rustix::process::Signal>> {
        const SI_KERNEL: i32 = 0x80;
        while let Some(signal) = self.file.read_signal().context("cannot read a signal")? {
            if signal.ssi_code == SI_KERNEL {
                continue;
            }
            let number = i32::try_from(signal.ssi_signo).context("a signal has no number")?;
            if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
                return Ok(Some(signal));
            }
        }
        Ok(None)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Setting a mask that was read before cannot fail.
        let _ = self.original_mask.thread_set_mask();
    }
}
