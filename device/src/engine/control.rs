// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Control requests.

use std::sync::atomic::Ordering;

use hmm_protocol::{
    AccessFlags, ControlKind, ControlReply, ControlRequest, Features, SessionFlags, SessionKey,
    Status,
};
use zerocopy::{FromBytes, byteorder::little_endian::U64};

use super::{Engine, session::Session};
use crate::logging::warn_limited;

/// How much is discarded between two looks at what else is to be done.
const DISCARD_SLICE_BYTES: u64 = 16 << 20;

/// How far a request came that was interrupted.
#[derive(Debug, Default)]
pub struct Interrupted {
    request: Vec<u8>,
    done: u64,
}

impl Interrupted {
    /// How far the request in `bytes` came, if it is the one that was interrupted.
    fn take(&mut self, bytes: &[u8]) -> u64 {
        let request = std::mem::take(&mut self.request);
        if request == bytes { self.done } else { 0 }
    }

    fn note(&mut self, bytes: &[u8], done: u64) {
        self.request = bytes.to_vec();
        self.done = done;
    }
}

/// The answer to a request.
#[derive(Debug)]
pub struct ControlAnswer {
    /// The reply.
    pub reply: ControlReply,
    /// What follows it.
    pub rest: Vec<u8>,
}

impl From<ControlReply> for ControlAnswer {
    fn from(reply: ControlReply) -> Self {
        Self {
            reply,
            rest: Vec::new(),
        }
    }
}

impl Engine {
    /// Executes the request in `bytes`, which are the whole device-readable part of a chain in private memory.
    pub fn control(&self, bytes: &[u8]) -> ControlReply {
        let mut interrupted = Interrupted::default();
        loop {
            let room = usize::MAX;
            if let Some(answer) = self.control_unless(bytes, room, &mut interrupted, &|| false) {
                return answer.reply;
            }
        }
    }

    /// The same for a chain with `room` bytes for what follows the reply, but what takes long ends between two slices if `is_wanted`. Then there is no reply; the request is to be
    /// executed again, and goes on where it was `interrupted`.
    pub fn control_unless(
        &self,
        bytes: &[u8],
        room: usize,
        interrupted: &mut Interrupted,
        is_wanted: &dyn Fn() -> bool,
    ) -> Option<ControlAnswer> {
        let features = self.features();
        let done = interrupted.take(bytes);
        let Ok((request, rest)) = ControlRequest::read_from_prefix(bytes) else {
            return Some(self.reply(Status::BadLength, 0).into());
        };
        let has_key = features.contains(Features::SESSION_KEY)
            && request.kind == ControlKind::SessionOpen as u8;
        let key = match (has_key, SessionKey::read_from_bytes(rest)) {
            (true, Ok(key)) => Some(key),
            (false, _) if rest.is_empty() => None,
            _ => return Some(self.reply(Status::BadLength, 0).into()),
        };
        let status = match request.validate(self.limits.memory_bytes, features) {
            Ok(ControlKind::Ping) => Ok(Status::Ok),
            Ok(ControlKind::SessionOpen) => {
                self.open_session(&request, key.unwrap_or_default(), is_wanted)
            }
            Ok(ControlKind::Discard) => self.discard(&request, done, is_wanted),
            Ok(ControlKind::AccessBits) => {
                let (status, bits) = match self.access_bits(&request, room) {
                    Ok(bits) => (Status::Ok, bits),
                    Err(status) => (status, Vec::new()),
                };
                return Some(ControlAnswer {
                    reply: self.reply(status, request.cookie.get()),
                    rest: bits,
                });
            }
            Ok(kind) => Ok(self.of_session(kind, request.argument0.get())),
            Err(status) => Ok(status),
        };
        match status {
            Ok(status) => Some(self.reply(status, request.cookie.get()).into()),
            Err(done) => {
                interrupted.note(bytes, done);
                None
            }
        }
    }

    /// What concerns a context or a job of the open session.
    fn of_session(&self, kind: ControlKind, argument: u64) -> Status {
        // Held, so that a session that ends takes the context with it.
        let session = self.session.read();
        if *session == Session::Closed {
            return Status::NoSession;
        }
        let done = match kind {
            ControlKind::ContextCreate => self.contexts.create(argument),
            ControlKind::ContextDestroy => self
                .contexts
                .destroy(argument)
                .map(|context| self.jobs.end_context(context)),
            ControlKind::JobCancel => {
                self.jobs.cancel(argument);
                Ok(())
            }
            ControlKind::Ping
            | ControlKind::SessionOpen
            | ControlKind::Discard
            | ControlKind::AccessBits => Err(Status::Internal),
        };
        done.err().unwrap_or(Status::Ok)
    }

    /// The two bitmaps that follow the reply.
    fn access_bits(&self, request: &ControlRequest, room: usize) -> Result<Vec<u8>, Status> {
        let (first, blocks) = (request.argument0.get(), request.argument1.get());
        // A quarter of a byte for each block. Validation has bounded the number of blocks.
        if room < (blocks / 4) as usize {
            return Err(Status::BadLength);
        }
        let session = self.session.read();
        if *session == Session::Closed {
            return Err(Status::NoSession);
        }
        let clear = AccessFlags(request.flags) == AccessFlags::CLEAR;
        let words = self.accessed.read(first, blocks, clear);
        Ok(words.into_iter().flat_map(u64::to_le_bytes).collect())
    }

    /// A `key` of zeros opens a session whose contents no driver can adopt. The error is an
    /// interruption; the memory knows how far it came.
    fn open_session(
        &self,
        request: &ControlRequest,
        key: SessionKey,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Status, u64> {
        self.close_session();
        let generation = if request.flags & SessionFlags::ADOPT.0 == 0 {
            let failed = |error| {
                warn_limited!(%error, "device memory could not be discarded; no session is open");
                Ok(Status::Internal)
            };
            if let Err(error) = self.memory.begin_renewal(Some(key)) {
                return failed(error);
            }
            loop {
                match self.memory.continue_renewal() {
                    Ok(Some(generation)) => break generation,
                    Ok(None) if is_wanted() => return Err(0),
                    Ok(None) => {}
                    Err(error) => return failed(error),
                }
            }
        } else {
            let generation = request.argument0.get();
            if !self.memory.belongs_to(generation, key) {
                return Ok(Status::StaleGeneration);
            }
            generation
        };
        self.memory.hand_out();
        *self.session.write() = Session::Open(generation);
        self.is_used.store(true, Ordering::Relaxed);
        tracing::debug!(generation, "session is open");
        Ok(Status::Ok)
    }

    /// Discards what is left of the range behind the first `done` bytes.
    fn discard(
        &self,
        request: &ControlRequest,
        mut done: u64,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Status, u64> {
        let session = self.session.read();
        if *session == Session::Closed {
            return Ok(Status::NoSession);
        }
        let (start, len) = (request.argument0.get(), request.argument1.get());
        while done < len {
            let here = DISCARD_SLICE_BYTES.min(len - done);
            // The request was validated: the range is in the memory, and so does not wrap.
            if let Err(error) = self.memory.discard(start.saturating_add(done), here) {
                warn_limited!(%error, start, len, "device memory could not be discarded");
                return Ok(Status::Internal);
            }
            done += here;
            if done < len && is_wanted() {
                return Err(done);
            }
        }
        Ok(Status::Ok)
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
