// SPDX-License-Identifier: GPL-2.0-only

//! The requests of the control queue.

use crate::sys::virtio::request::Idle;
use hmm_protocol::{
    AccessFlags,
    ControlKind,
    ControlRequest,
    SessionFlags,
    SessionKey,
    SessionRequest,
    CONTROL_BYTES,
    SESSION_REQUEST_BYTES, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// What the driver asks of the device.
#[derive(Clone, Copy)]
pub(super) enum Question {
    /// A session: a new one, or one that adopts the contents of a generation; with a key where keys
    /// were negotiated.
    OpenSession {
        adopt: Option<u64>,
        key: Option<SessionKey>,
    },
    /// A context with this number, without mappings.
    CreateContext(u32),
    /// That a context goes, with its jobs.
    DestroyContext(u32),
    /// Whether it is there.
    Ping,
    /// That the job with this cookie ends.
    CancelJob(u64),
    /// Which of [`ACCESS_BLOCKS`] blocks of device memory from this one on jobs accessed since they
    /// were asked for last.
    AccessBits(u64),
}

/// Blocks of 2 MiB of device memory whose access bits are asked for at once: those of 16 GiB.
pub(super) const ACCESS_BLOCKS: usize = 8192;
/// Bytes of the bitmap with one bit for each of them.
pub(super) const ACCESS_BITMAP_BYTES: usize = ACCESS_BLOCKS / 8;

impl Question {
    /// The request, and how many of its bytes are sent.
    pub(super) fn to_wire(self, cookie: u64) -> (SessionRequest, usize) {
        let bare = |request| {
            let request = SessionRequest {
                request,
                key: SessionKey::default(),
            };
            (request, CONTROL_BYTES)
        };
        let plain = |kind, argument| bare(ControlRequest::new(kind, 0, cookie, argument, 0));
        match self {
            Self::OpenSession { adopt, key } => {
                let flags = adopt.map_or(0, |_| SessionFlags::ADOPT.0);
                let argument = adopt.unwrap_or(0);
                let request = SessionRequest {
                    request: ControlRequest::new(
                        ControlKind::SessionOpen,
                        flags,
                        cookie,
                        argument,
                        0,
                    ),
                    key: key.unwrap_or_default(),
                };
                let length = key.map_or(CONTROL_BYTES, |_| SESSION_REQUEST_BYTES);
                (request, length)
            }
            Self::Ping => plain(ControlKind::Ping, 0),
            Self::CreateContext(context) => plain(ControlKind::ContextCreate, u64::from(context)),
            Self::DestroyContext(context) => plain(ControlKind::ContextDestroy, u64::from(context)),
            Self::CancelJob(job) => plain(ControlKind::JobCancel, job),
            Self::AccessBits(first) => bare(ControlRequest::new(
                ControlKind::AccessBits,
                AccessFlags::CLEAR.0,
                cookie,
                first,
                ACCESS_BLOCKS as u64,
            )),
        }
    }

    /// Bytes of the answer.
    pub(super) fn reply_bytes(self) -> usize {
        match self {
            // One bitmap of what was accessed, one of what was written.
            Self::AccessBits(_) => CONTROL_BYTES + 2 * ACCESS_BITMAP_BYTES,
            _ => CONTROL_BYTES,
        }
    }
}

/// A request of the control queue; `None` if the device kept it.
#[pin_data]
pub(super) struct Control {
    #[pin]
    pub(super) request: Mutex<Option<Idle>>,
}

impl Control {
    /// Prepares the request, with room for answers of `reply_bytes` bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(reply_bytes: usize) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let request = Idle::new(SESSION_REQUEST_BYTES, reply_bytes)?;
            Ok(try_pin_init!(Self {
                request <- new_mutex!(Some(request), "Control::request"),
            }))
        })
    }
}

#[kunit_tests(virtio_hmm_control)]
mod tests {
    use super::*;
    use crate::sys::services::random;
    use hmm_protocol::golden;
    use zerocopy::IntoBytes;

    const GENERATION: u64 = 0x0102_0304_0506_0708;

    #[test]
    fn without_keys_a_session_is_asked_for_as_in_version_1_0() {
        let question = Question::OpenSession {
            adopt: Some(GENERATION),
            key: None,
        };
        let (wire, length) = question.to_wire(9);
        assert!(wire.as_bytes()[..length] == golden::CONTROL_REQUEST);
    }

    #[test]
    fn the_key_follows_the_request() {
        let question = Question::OpenSession {
            adopt: Some(GENERATION),
            key: Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        };
        let (wire, length) = question.to_wire(9);
        assert!(wire.as_bytes()[..length] == golden::SESSION_REQUEST);
    }

    #[test]
    fn access_bits_are_cleared_as_they_are_read() {
        let question = Question::AccessBits(64);
        let (wire, length) = question.to_wire(9);
        let request = wire.request;
        assert!(length == CONTROL_BYTES && request.flags == AccessFlags::CLEAR.0);
        assert!(request.argument0.get() == 64 && request.argument1.get() == 8192);
        assert!(question.reply_bytes() == CONTROL_BYTES + 2048);
    }

    #[test]
    fn each_key_is_another() -> Result {
        let (first, second): (SessionKey, SessionKey) = (random::secret()?, random::secret()?);
        assert!(first != second && first != [0; 16] && second != [0; 16]);
        Ok(())
    }
}
