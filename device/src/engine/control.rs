// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Control requests.

use std::sync::atomic::Ordering;

use hmm_protocol::{
    ControlKind, ControlReply, ControlRequest, Features, SessionFlags, SessionKey, Status,
};
use zerocopy::{FromBytes, byteorder::little_endian::U64};

use super::{Engine, session::Session};
use crate::logging::warn_limited;

impl Engine {
    /// Executes the request in `bytes`, which are the whole device-readable part of a chain in private memory.
    pub fn control(&self, bytes: &[u8]) -> ControlReply {
        let features = self.features();
        let Ok((request, rest)) = ControlRequest::read_from_prefix(bytes) else {
            return self.reply(Status::BadLength, 0);
        };
        let has_key = features.contains(Features::SESSION_KEY)
            && request.kind == ControlKind::SessionOpen as u8;
        let key = match (has_key, SessionKey::read_from_bytes(rest)) {
            (true, Ok(key)) => Some(key),
            (false, _) if rest.is_empty() => None,
            _ => return self.reply(Status::BadLength, 0),
        };
        let status = match request.validate(self.limits.memory_bytes, features) {
            Ok(ControlKind::Ping) => Status::Ok,
            Ok(ControlKind::SessionOpen) => self.open_session(&request, key.unwrap_or_default()),
            Ok(ControlKind::Discard) => self.discard(&request),
            Err(status) => status,
        };
        self.reply(status, request.cookie.get())
    }

    /// A `key` of zeros opens a session whose contents no driver can adopt.
    fn open_session(&self, request: &ControlRequest, key: SessionKey) -> Status {
        // Batches hold the read side while they run, so nothing is copied while contents change hands.
        let mut session = self.session.write();
        *session = Session::Closed;
        let generation = if request.flags & SessionFlags::ADOPT.0 == 0 {
            match self.memory.renew(Some(key)) {
                Ok(generation) => generation,
                Err(error) => {
                    warn_limited!(%error, "device memory could not be discarded; no session is open");
                    return Status::Internal;
                }
            }
        } else {
            let generation = request.argument0.get();
            if !self.memory.belongs_to(generation, key) {
                return Status::StaleGeneration;
            }
            generation
        };
        *session = Session::Open(generation);
        self.is_used.store(true, Ordering::Relaxed);
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
