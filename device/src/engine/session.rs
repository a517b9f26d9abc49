// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The session: which generation of contents the driver works on.

use hmm_protocol::Status;

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
