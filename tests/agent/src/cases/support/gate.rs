// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Processes and threads that wait for each other.

use anyhow::{Context, Result, ensure};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;

/// How long one side waits before it says that the other has failed.
const LIMIT: Timespec = Timespec {
    tv_sec: 100,
    tv_nsec: 0,
};

/// A gate that one side opens and the other waits at. It works between threads and over `fork`; each opening lets one
/// wait through.
#[derive(Debug)]
pub(in crate::cases) struct Gate(OwnedFd);

impl Gate {
    /// A closed gate.
    pub(in crate::cases) fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE;
        Ok(Self(eventfd(0, flags).context("cannot make an eventfd")?))
    }

    /// Lets one wait through.
    pub(in crate::cases) fn open(&self) -> Result<()> {
        rustix::io::write(&self.0, &1_u64.to_ne_bytes()).context("cannot open a gate")?;
        Ok(())
    }

    /// Waits for an opening.
    pub(in crate::cases) fn wait(&self) -> Result<()> {
        loop {
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&LIMIT)) {
                Ok(ready) => {
                    ensure!(ready > 0, "the other side did not open the gate");
                    break;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno).context("cannot wait at a gate"),
            }
        }
        rustix::io::read(&self.0, &mut [0; 8]).context("cannot pass a gate")?;
        Ok(())
    }
}
