// SPDX-License-Identifier: GPL-2.0-only

//! A fixed number of requests that are used again and again.
//!
//! The number bounds what is in flight on a queue, so a ring is never full, and a CPU fault needs
//! no memory to send its batch.

use crate::sys::request::Idle;
use kernel::{
    new_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        CondVar,
        SpinLock, //
    }, //
};

/// Idle requests.
#[pin_data]
pub(super) struct RequestPool {
    #[pin]
    idle: SpinLock<KVec<Idle>>,
    #[pin]
    returned: CondVar,
}

impl RequestPool {
    /// `count` requests with buffers of the given sizes, bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(count: usize, readable: usize, writable: usize) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let mut idle = KVec::with_capacity(count, GFP_KERNEL)?;
            for _ in 0..count {
                idle.push(Idle::new(readable, writable)?, GFP_KERNEL)?;
            }
            Ok(try_pin_init!(Self {
                idle <- new_spinlock!(idle, "RequestPool::idle"),
                returned <- new_condvar!("RequestPool::returned"),
            }))
        })
    }

    /// Keeps `count` requests at most, at least one.
    pub(super) fn limit(&self, count: usize) {
        loop {
            // Dropped after the lock.
            let surplus = {
                let mut idle = self.idle.lock();
                if idle.len() <= count.max(1) {
                    return;
                }
                idle.pop()
            };
            drop(surplus);
        }
    }

    /// Takes a request; sleeps while there is none. Whoever holds one waits for the device at
    /// most, and that is bounded.
    pub(super) fn take(&self) -> Idle {
        let mut idle = self.idle.lock();
        loop {
            if let Some(request) = idle.pop() {
                return request;
            }
            self.returned.wait(&mut idle);
        }
    }

    /// Gives a request back.
    pub(super) fn give(&self, request: Idle) {
        // The vector has room for all requests of the pool; nothing else is ever given to it.
        let result = self.idle.lock().push_within_capacity(request);
        debug_assert!(result.is_ok());
        self.returned.notify_one();
    }
}
