// SPDX-License-Identifier: GPL-2.0-only

//! The request of the control queue.

use crate::sys::virtio::request::Idle;
use hmm_protocol::{
    CONTROL_BYTES,
    SESSION_REQUEST_BYTES, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// The one request of the control queue; `None` if the device kept it.
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
