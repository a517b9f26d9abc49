// SPDX-License-Identifier: GPL-2.0-only

//! The requests of the control queue.

use crate::sys::virtio::request::Idle;
use hmm_protocol::{
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
    /// That the job with this cookie ends.
    CancelJob(u64),
}

impl Question {
    /// The request, and how many of its bytes are sent.
    pub(super) fn to_wire(self, cookie: u64) -> (SessionRequest, usize) {
        let plain = |kind, argument| {
            let request = SessionRequest {
                request: ControlRequest::new(kind, 0, cookie, argument, 0),
                key: SessionKey::default(),
            };
            (request, CONTROL_BYTES)
        };
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
            Self::CreateContext(context) => plain(ControlKind::ContextCreate, u64::from(context)),
            Self::DestroyContext(context) => plain(ControlKind::ContextDestroy, u64::from(context)),
            Self::CancelJob(cookie) => plain(ControlKind::JobCancel, cookie),
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
    /// Prepares the request.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let request = Idle::new(SESSION_REQUEST_BYTES, CONTROL_BYTES)?;
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
    fn each_key_is_another() -> Result {
        let (first, second): (SessionKey, SessionKey) = (random::secret()?, random::secret()?);
        assert!(first != second && first != [0; 16] && second != [0; 16]);
        Ok(())
    }
}
