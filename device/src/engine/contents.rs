// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The end of sessions and of what they leave in device memory.

use std::sync::atomic::Ordering;

use hmm_protocol::SessionKey;

use super::{Engine, session::Session};
use crate::{logging::warn_limited, memory::MemoryError};

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
        self.renew_with(None)
    }

    /// Gives up what a driver left, if one did, and forgets its key. If this fails, no driver can adopt what is left, and
    /// the next session discards it.
    pub fn scrub(&self) {
        if !self.is_used.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.renew_with(Some(SessionKey::default())) {
            warn_limited!(%error, "device memory could not be scrubbed");
        }
    }

    fn renew_with(&self, key: Option<SessionKey>) -> Result<u64, MemoryError> {
        let mut session = self.session.write();
        *session = Session::Closed;
        self.memory.renew(key)
    }

    /// The generation of the open session.
    pub fn open_generation(&self) -> Option<u64> {
        match *self.session.read() {
            Session::Open(generation) => Some(generation),
            Session::Closed => None,
        }
    }
}
