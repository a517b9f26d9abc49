// SPDX-License-Identifier: GPL-2.0-only

//! The buffers of the event queue.

use crate::sys::virtio::request::{
    Idle,
    Submitted, //
};
use hmm_protocol::EVENT_BYTES;
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// Buffers that the device may fill before the driver looks.
const BUFFERS: usize = 16;

/// Buffers of the event queue.
#[pin_data]
pub(super) struct Events {
    #[pin]
    pub(super) buffers: Mutex<Buffers>,
}

/// See [`Events`].
pub(super) struct Buffers {
    pub(super) idle: KVec<Idle>,
    pub(super) posted: KVec<Submitted>,
}

impl Events {
    /// Prepares the buffers.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let mut idle = KVec::with_capacity(BUFFERS, GFP_KERNEL)?;
            for _ in 0..BUFFERS {
                idle.push(Idle::new(0, EVENT_BYTES)?, GFP_KERNEL)?;
            }
            let buffers = Buffers {
                idle,
                posted: KVec::with_capacity(BUFFERS, GFP_KERNEL)?,
            };
            Ok(try_pin_init!(Self {
                buffers <- new_mutex!(buffers, "Events::buffers"),
            }))
        })
    }
}
