// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The end of sessions and of what they leave in device memory.

use std::sync::atomic::Ordering;

use hmm_protocol::SessionKey;

use super::{Engine, session::Session};
use crate::{logging::warn_limited, memory::MemoryError};

impl Engine {
    /// Closes the session, with its contexts and jobs. Returns when no batch of it runs any more and no job accesses memory.
    pub fn close_session(&self) {
        // Batches and the requests that create contexts hold the read side, so none runs any more, and none of this
        // session follows.
        *self.session.write() = Session::Closed;
        self.contexts.clear();
        self.jobs.end_all();
        self.accessed.clear();
    }

    /// Closes the session and begins to give all contents up.
    ///
    /// # Errors
    /// See [`DeviceMemory::begin_renewal`](crate::memory::DeviceMemory::begin_renewal).
    pub fn begin_renewal(&self) -> Result<(), MemoryError> {
        self.close_session();
        self.memory.begin_renewal(None)
    }

    /// Gives up what a driver left, if one did, and forgets its key. If this fails, no driver can adopt what is left, and
    /// the next session discards it.
    pub fn scrub(&self) {
        if !self.is_used.swap(false, Ordering::Relaxed) {
            return;
        }
        self.close_session();
        if let Err(error) = self.memory.renew(Some(SessionKey::default())) {
            warn_limited!(%error, "device memory could not be scrubbed");
        }
    }

    /// The generation of the open session.
    pub fn open_generation(&self) -> Option<u64> {
        match *self.session.read() {
            Session::Open(generation) => Some(generation),
            Session::Closed => None,
        }
    }
}
