// SPDX-License-Identifier: GPL-2.0-only

//! The kernel's side of a ring: what the driver does with it under the lock.

use crate::sys::{
    bindings,
    virtio::request::Request, //
};
use core::ptr::{
    null_mut,
    NonNull, //
};
use kernel::{
    device,
    sync::{
        aref::ARef,
        Arc, //
    },
    types::ForeignOwnable, //
};

/// What is known of a ring, under its lock.
pub(super) struct Ring {
    /// Null while the queues do not exist.
    pub(super) vq: *mut bindings::virtqueue,
    /// Whether requests are accepted.
    pub(super) open: bool,
    /// What accesses memory on behalf of the queue; set since the queue existed first. It stays when
    /// the queue goes: a DMA mapping is the device's, and may outlive the queue.
    pub(super) dma_device: Option<ARef<device::Device>>,
    /// Requests that are in the ring.
    queued: u32,
    /// Tasks that need an interrupt to go on.
    sleepers: u32,
}

// SAFETY: The pointer is only used under the lock, or by tasks that `Queue::notifying` counts.
unsafe impl Send for Ring {}

impl Ring {
    /// A ring that does not exist yet.
    pub(super) fn closed() -> Self {
        Self {
            vq: null_mut(),
            open: false,
            dma_device: None,
            queued: 0,
            sleepers: 0,
        }
    }

    /// What accesses memory on behalf of the queue. It lives as long as the ring.
    pub(super) fn dma_device(&self) -> Option<NonNull<bindings::device>> {
        let device: &device::Device = self.dma_device.as_ref()?;
        // CAST: `Device` is a transparent wrapper of the C structure.
        Some(NonNull::from(device).cast())
    }

    /// The ring took a request.
    pub(super) fn count_queued(&mut self) {
        self.queued += 1;
    }

    /// A task is about to sleep.
    pub(super) fn begin_sleep(&mut self) {
        self.sleepers += 1;
        self.arm();
    }

    /// It does not sleep any more.
    pub(super) fn end_sleep(&mut self) {
        self.sleepers -= 1;
        // An interrupt may have been lost to a busy line; the ring itself is the truth.
        self.reap();
        if self.sleepers == 0 {
            self.disarm();
        }
    }

    /// The device interrupted.
    pub(super) fn interrupt(&mut self) {
        self.disarm();
        self.reap();
        if self.sleepers > 0 {
            self.arm();
        }
    }

    /// Takes all returned requests out of the ring.
    pub(super) fn reap(&mut self) {
        if self.vq.is_null() {
            return;
        }
        loop {
            let mut used = 0u32;
            // SAFETY: `vq` is valid while it is not null, and the caller holds the ring's lock.
            let cookie = unsafe { bindings::virtqueue_get_buf(self.vq, &mut used) };
            if cookie.is_null() {
                return;
            }
            // SAFETY: Every cookie comes from `into_foreign` in `Queue::submit` and is returned by
            // the ring once.
            let request = unsafe { <Arc<Request> as ForeignOwnable>::from_foreign(cookie) };
            self.queued = self.queued.saturating_sub(1);
            request.finish_used(used);
        }
    }

    /// Asks for an interrupt at the next returned request; reaps those that came meanwhile. With
    /// nothing in the ring there is none to ask for: it would come at a request that a task polls.
    fn arm(&mut self) {
        loop {
            self.reap();
            if self.vq.is_null() {
                return;
            }
            if self.queued == 0 {
                self.disarm();
                return;
            }
            // SAFETY: As in `reap`.
            if unsafe { bindings::virtqueue_enable_cb(self.vq) } {
                return;
            }
        }
    }

    /// Asks for no interrupt.
    pub(super) fn disarm(&mut self) {
        if !self.vq.is_null() {
            // SAFETY: As in `reap`.
            unsafe { bindings::virtqueue_disable_cb(self.vq) };
        }
    }

    /// Returns all requests that a reset device left in the ring.
    pub(super) fn cancel(&mut self) {
        self.reap();
        if self.vq.is_null() {
            return;
        }
        loop {
            // SAFETY: As in `reap`; the device is reset, so the ring is quiet.
            let cookie = unsafe { bindings::virtqueue_detach_unused_buf(self.vq) };
            if cookie.is_null() {
                return;
            }
            // SAFETY: As in `reap`.
            let request = unsafe { <Arc<Request> as ForeignOwnable>::from_foreign(cookie) };
            self.queued = self.queued.saturating_sub(1);
            request.finish_cancelled();
        }
    }
}
