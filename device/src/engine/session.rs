// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The session: which generation of contents the driver works on.

use hmm_protocol::Status;

use super::Engine;
use crate::memory::MemoryError;

/// Open with a generation, or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    Closed,
    Open(u64),
}

impl Session {
    /// Whether a batch of `generation` may run.
    pub(super) fn check(self, generation: u64) -> Result<(), Status> {
        match self {
            Self::Closed => Err(Status::NoSession),
            Self::Open(open) if open != generation => Err(Status::StaleGeneration),
            Self::Open(_) => Ok(()),
        }
    }
}

impl Engine {
    /// Closes the session. Returns when no batch of it runs any more.
    pub fn close_session(&self) {
        *self.session.write() = Session::Closed;
    }

    /// Closes the session and gives all contents up. Returns the new generation.
    ///
    /// # Errors
    /// Device memory cannot be discarded.
    pub fn renew(&self) -> Result<u64, MemoryError> {
        let mut session = self.session.write();
        *session = Session::Closed;
        self.memory.renew()
    }

    /// The generation of the open session.
    pub fn open_generation(&self) -> Option<u64> {
        match *self.session.read() {
            Session::Open(generation) => Some(generation),
            Session::Closed => None,
        }
    }
}
