// SPDX-License-Identifier: GPL-2.0-only

//! A fixed number of requests that are used again and again.
//!
//! The number bounds what is in flight on a queue, so a ring is never full, and a CPU fault needs
//! no memory to send its batch.

use crate::sys::{
    services::reserve::Reserve,
    virtio::request::Idle, //
};
use kernel::{
    prelude::*,
    sync::static_lock_class, //
};

/// Idle requests. A task that has taken one waits for nothing but the device, and that is bounded.
pub(super) type RequestPool = Reserve<Idle>;

/// `count` requests with buffers of the given sizes, bytes.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn request_pool(
    count: usize,
    readable: usize,
    writable: usize,
) -> impl PinInit<RequestPool, Error> {
    Reserve::new(
        count,
        move || Idle::new(readable, writable),
        (c"RequestPool::idle", static_lock_class!()),
        (c"RequestPool::returned", static_lock_class!()),
    )
}
