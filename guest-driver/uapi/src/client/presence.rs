// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Whether the device behind an open node is there, as `poll()` tells.

use super::{Device, Error};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fd::AsFd;
use rustix::io::Errno;

/// Whether there is a device. `docs/loss.md` says what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Calls are served.
    Present,
    /// The device was lost and may come back. Calls wait.
    Lost,
    /// The device has gone, and does not come back to this open node. Calls fail.
    Gone,
}

impl Presence {
    /// The name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Lost => "lost",
            Self::Gone => "gone",
        }
    }

    /// What `poll()` is to wait for to hear that this has changed. That the device has gone is always told.
    const fn change(self) -> PollFlags {
        match self {
            Self::Present => PollFlags::PRI,
            Self::Lost => PollFlags::OUT,
            Self::Gone => PollFlags::empty(),
        }
    }
}

impl Device {
    /// Whether the device is there now.
    ///
    /// # Errors
    /// What `poll()` reports.
    pub fn presence(&self) -> Result<Presence, Error> {
        let events = PollFlags::PRI | PollFlags::OUT;
        let found = self.poll(events, Some(&Timespec::default()))?;
        Ok(found.unwrap_or(Presence::Gone))
    }

    /// Waits until the presence is another than `before`, and returns it; without `before` it returns at once. A device
    /// that is lost and comes back in one moment may not be noticed.
    ///
    /// # Errors
    /// What `poll()` reports.
    pub fn wait_for_change(&self, before: Option<Presence>) -> Result<Presence, Error> {
        let Some(before) = before else {
            return self.presence();
        };
        loop {
            if let Some(found) = self.poll(before.change(), None)? {
                return Ok(found);
            }
        }
    }

    fn poll(&self, events: PollFlags, limit: Option<&Timespec>) -> Result<Option<Presence>, Error> {
        let node = self.as_fd();
        let mut polled = [PollFd::new(&node, events)];
        loop {
            match poll(&mut polled, limit) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::of_device("poll()", errno)),
                Ok(_) => break,
            }
        }
        let found = polled[0].revents();
        Ok(if found.contains(PollFlags::HUP) {
            Some(Presence::Gone)
        } else if found.contains(PollFlags::PRI) {
            Some(Presence::Lost)
        } else if found.contains(PollFlags::OUT) {
            Some(Presence::Present)
        } else {
            None
        })
    }
}
