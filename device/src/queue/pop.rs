// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Taking chains from a ring and giving them back.

use std::sync::atomic::Ordering;

use hmm_protocol::EventKind;
use vhost_user_backend::VringT;
use virtio_queue::{QueueOwnedT, QueueT};

use super::{Worker, used::UsedSet};
use crate::{device::Device, guest_memory::GuestMemory, logging::warn_limited, ring::Ring};

/// What a look at a ring gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Popped {
    /// A chain.
    Chain,
    /// Nothing is available.
    Empty,
    /// The queue is stopped, disabled, broken or not to be served now.
    Closed,
}

impl Device {
    /// Takes the next chain of queue `index` to the worker's.
    pub(super) fn pop(
        &self,
        index: u16,
        ring: &Ring,
        guest: &GuestMemory,
        worker: &mut Worker,
    ) -> Popped {
        let status = self.queue(index);
        if status.take_restarted() {
            worker.forget(index);
        }
        if status.is_broken() {
            return Popped::Closed;
        }
        let mut state = ring.get_mut();
        if !state.is_enabled() || !state.get_queue().ready() {
            return Popped::Closed;
        }
        let queue = state.get_queue_mut();
        let available = match queue.avail_idx(guest.mappings(), Ordering::Acquire) {
            Ok(available) if available.0 == queue.next_avail() => return Popped::Empty,
            Ok(available) => available,
            Err(error) => {
                drop(state);
                self.break_queue(index, &error.to_string());
                return Popped::Closed;
            }
        };
        let popped = match queue.iter(guest.mappings()) {
            Ok(mut chains) => chains.next(),
            Err(error) => {
                drop(state);
                self.break_queue(index, &error.to_string());
                return Popped::Closed;
            }
        };
        // There is a chain, but the iterator also ends where it cannot read.
        let Some(descriptors) = popped else {
            drop(state);
            self.break_queue(index, "the available ring cannot be read");
            return Popped::Closed;
        };
        if descriptors.head_index() >= queue.size() {
            drop(state);
            self.break_queue(
                index,
                "the available ring names a descriptor that does not exist",
            );
            return Popped::Closed;
        }
        status.set_executing(true);
        let position = queue.next_avail().wrapping_sub(1);
        drop(state);
        worker.chain.take(descriptors);
        let seen = worker.seen.entry(index).or_default();
        worker.delay = Some(seen.started(position, available.0));
        Popped::Chain
    }

    /// Notes that the chain that was taken last is served, and not put back.
    pub(super) fn note_start(&self, index: u16, worker: &mut Worker) {
        if let Some(delay) = worker.delay.take() {
            self.stats().queue(index).record_delay(delay);
        }
    }

    /// Puts the chain that was taken last back, unexecuted.
    pub(super) fn unpop(&self, index: u16, ring: &Ring) {
        let mut state = ring.get_mut();
        state.get_queue_mut().go_to_previous_position();
        self.queue(index).set_executing(false);
    }

    /// Publishes `set` and signals the driver if it wants to know.
    pub(super) fn publish(&self, index: u16, ring: &Ring, guest: &GuestMemory, set: &mut UsedSet) {
        let mut state = ring.get_mut();
        let published = set.publish(state.get_queue_mut(), guest.mappings());
        let stats = self.stats().queue(index);
        match published {
            Ok(None) => {}
            Ok(Some(false)) => stats.signals_suppressed.add(1),
            Ok(Some(true)) => {
                drop(state);
                stats.signals_sent.add(1);
                if let Err(error) = ring.signal_used_queue() {
                    tracing::debug!(%error, queue = index, "the front end could not be signalled");
                }
            }
            Err(error) => {
                drop(state);
                self.break_queue(index, &error.to_string());
            }
        }
    }

    /// Asks for kicks again. Returns whether something became available meanwhile.
    pub(super) fn enable_kicks(&self, index: u16, ring: &Ring, guest: &GuestMemory) -> bool {
        let mut state = ring.get_mut();
        if !state.is_enabled() || !state.get_queue().ready() {
            return false;
        }
        match state.get_queue_mut().enable_notification(guest.mappings()) {
            Ok(more) => more,
            Err(error) => {
                drop(state);
                self.break_queue(index, &error.to_string());
                false
            }
        }
    }

    /// Begins to serve a ring: asks for no kicks while it is worked on anyway. Returns `false` if it is not to be served.
    pub(super) fn begin(&self, index: u16, ring: &Ring, guest: &GuestMemory) -> bool {
        if self.queue(index).is_broken() {
            return false;
        }
        match ring.examine(guest) {
            Ok(true) => {}
            Ok(false) => return false,
            Err(defect) => {
                self.break_queue(index, &defect.to_string());
                return false;
            }
        }
        let mut state = ring.get_mut();
        // If the ring cannot be written, the next step finds out and says so.
        let _ = state.get_queue_mut().disable_notification(guest.mappings());
        true
    }

    /// Stops serving a queue that makes no sense, until the driver sets it up again.
    pub(crate) fn break_queue(&self, index: u16, reason: &str) {
        if !self.queue(index).set_broken() {
            return;
        }
        if let Some(ring) = self.rings().get(usize::from(index)) {
            ring.signal_error();
        }
        self.stats().queue(index).broken.add(1);
        warn_limited!(
            queue = index,
            name = self.layout().name(index),
            reason,
            "queue is broken and not served until the driver sets it up again"
        );
        self.raise(self.event(EventKind::QueueBroken, index, 0));
    }
}
