// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Control requests.

use hmm_protocol::{ControlKind, ControlReply, ControlRequest, SessionFlags, Status};
use zerocopy::{FromBytes, byteorder::little_endian::U64};

use super::{Engine, session::Session};
use crate::logging::warn_limited;

impl Engine {
    /// Executes the request in `bytes`, which are the whole device-readable part of a chain in private memory.
    pub fn control(&self, bytes: &[u8]) -> ControlReply {
        let Ok(request) = ControlRequest::read_from_bytes(bytes) else {
            return self.reply(Status::BadLength, 0);
        };
        let status = match request.validate(self.limits.memory_bytes) {
            Ok(ControlKind::Ping) => Status::Ok,
            Ok(ControlKind::SessionOpen) => self.open_session(&request),
            Ok(ControlKind::Discard) => self.discard(&request),
            Err(status) => status,
        };
        self.reply(status, request.cookie.get())
    }

    fn open_session(&self, request: &ControlRequest) -> Status {
        // Batches hold the read side while they run, so nothing is copied while contents change hands.
        let mut session = self.session.write();
        *session = Session::Closed;
        let generation = if request.flags & SessionFlags::ADOPT.0 == 0 {
            match self.memory.renew() {
                Ok(generation) => generation,
                Err(error) => {
                    warn_limited!(%error, "device memory could not be discarded; no session is open");
                    return Status::Internal;
                }
            }
        } else {
            let generation = self.memory.identity().generation;
            if request.argument0.get() != generation {
                return Status::StaleGeneration;
            }
            generation
        };
        *session = Session::Open(generation);
        tracing::debug!(generation, "session is open");
        Status::Ok
    }

    fn discard(&self, request: &ControlRequest) -> Status {
        let session = self.session.read();
        if *session == Session::Closed {
            return Status::NoSession;
        }
        let (start, len) = (request.argument0.get(), request.argument1.get());
        match self.memory.discard(start, len) {
            Ok(()) => Status::Ok,
            Err(error) => {
                warn_limited!(%error, start, len, "device memory could not be discarded");
                Status::Internal
            }
        }
    }

    fn reply(&self, status: Status, cookie: u64) -> ControlReply {
        ControlReply {
            status: status.to_wire(),
            reserved: [0; 7],
            cookie: U64::new(cookie),
            generation: U64::new(self.memory.identity().generation),
            reserved2: U64::new(0),
        }
    }
}
