// SPDX-License-Identifier: GPL-2.0-only

//! The event queue: what the device reports without being asked.
//!
//! Every event has its consequence elsewhere too (a broken queue does not answer, a new generation
//! is refused by the next batch), so events serve the log. They are collected when a batch is
//! answered with an error or not at all, and when the link is stopped or started anew.

use super::{
    events::Events,
    state::Link, //
};
use crate::sys::{
    services::log_limit::warn_limited,
    virtio::request::{
        Returned,
        Written, //
    }, //
};
use hmm_protocol::{
    queue_name,
    Event,
    EventKind,
    EVENT_BYTES, //
};
use kernel::prelude::*;
use zerocopy::FromBytes;

impl Events {
    /// Hands all idle buffers to the device.
    ///
    /// # Errors
    ///
    /// What the queue reports.
    pub(super) fn post(&self, link: &Link) -> Result {
        let queue = link.event_queue()?;
        let mut buffers = self.buffers.lock();
        while let Some(mut request) = buffers.idle.pop() {
            request.clear_written(EVENT_BYTES);
            match queue.submit(request, 0, EVENT_BYTES) {
                Ok((submitted, _)) => {
                    // There is room for all buffers.
                    drop(buffers.posted.push_within_capacity(submitted));
                }
                Err((error, request)) => {
                    drop(buffers.idle.push_within_capacity(request));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Logs what the device told, and hands the buffers to it again.
    pub(super) fn collect(&self, link: &Link) {
        self.take_back(link);
        if self.post(link).is_err() {
            dev_dbg!(link.device(), "no event buffers could be posted\n");
        }
    }

    /// Logs what the device told and keeps the buffers.
    pub(super) fn take_back(&self, link: &Link) {
        if let Ok(queue) = link.event_queue() {
            queue.reap();
        }
        let mut buffers = self.buffers.lock();
        let mut index = 0;
        while index < buffers.posted.len() {
            let Ok(submitted) = buffers.posted.remove(index) else {
                return;
            };
            match submitted.try_take() {
                Returned::Used(request, used) => {
                    log(link, request.written(), used);
                    drop(buffers.idle.push_within_capacity(request));
                }
                Returned::Cancelled(request) => {
                    drop(buffers.idle.push_within_capacity(request));
                }
                Returned::Pending(submitted) => {
                    drop(buffers.posted.insert_within_capacity(index, submitted));
                    index += 1;
                }
            }
        }
    }
}

fn log(link: &Link, written: Written<'_>, used: u32) {
    let bytes = written.read::<EVENT_BYTES>();
    let event = match bytes.and_then(|bytes| Event::read_from_bytes(&bytes).ok()) {
        Some(event) if used as usize == EVENT_BYTES => event,
        _ => {
            link.stats.protocol_errors.add(1);
            return;
        }
    };
    match EventKind::from_wire(event.kind) {
        Some(EventKind::Generation) => {
            warn_limited!(
                link.device(),
                "event: generation is now {:#x}\n",
                event.value.get()
            );
        }
        Some(EventKind::QueueBroken) => {
            warn_limited!(
                link.device(),
                "event: {} queue {} is broken\n",
                queue_name(event.queue.get()),
                event.queue.get()
            );
        }
        Some(EventKind::Poison) => {
            warn_limited!(
                link.device(),
                "event: device memory at {:#x} is poisoned\n",
                event.value.get()
            );
        }
        Some(EventKind::Lost) => {
            warn_limited!(
                link.device(),
                "event: {} events were lost\n",
                event.value.get()
            );
        }
        None => dev_dbg!(link.device(), "event of unknown kind {}\n", event.kind),
    }
}
