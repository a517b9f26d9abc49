// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `FENCE`: a batch that starts only when all earlier copy batches of all queues are complete.
//!
//! Rings carry no order among queues, so "earlier" is what was available when the device came to the fence, whether the
//! driver has kicked or not. Two fences that meet would wait for each other; the one that came first goes first.

use std::{sync::atomic::Ordering, time::Duration};

use vhost_user_backend::VringT;
use virtio_queue::QueueT;

use crate::{device::Device, guest_memory::GuestMemory};

/// How long to sleep between two looks.
const PERIOD: Duration = Duration::from_micros(20);

impl Device {
    /// Waits for the fence of the batch at the head of queue `index`. Returns `false` if the wait was given up because
    /// this worker is wanted.
    pub(super) fn wait_for_fence(&self, index: u16, guest: &GuestMemory) -> bool {
        let ticket = self.tickets().take(self.queue(index));
        let rings = self.rings();
        let targets: Vec<(u16, Option<u16>)> = self
            .layout()
            .copy_queues()
            .filter(|other| *other != index)
            .map(|other| {
                let target = rings.get(usize::from(other)).and_then(|ring| {
                    let state = ring.get_ref();
                    let queue = state.get_queue();
                    if !state.is_enabled() || !queue.ready() {
                        return None;
                    }
                    queue
                        .avail_idx(guest.mappings(), Ordering::Acquire)
                        .ok()
                        .map(|index| index.0)
                });
                (other, target)
            })
            .collect();
        // A driver may kick once for several queues' chains, or not yet: their workers may be asleep.
        for (other, target) in &targets {
            if target.is_some_and(|target| !self.has_passed(*other, target, ticket)) {
                self.wake(self.layout().thread_of(*other));
            }
        }
        let reached = loop {
            let waiting = targets.iter().any(|(other, target)| {
                target.is_some_and(|target| !self.has_passed(*other, target, ticket))
            });
            if !waiting {
                break true;
            }
            if self.gate().is_wanted() {
                break false;
            }
            std::thread::sleep(PERIOD);
        };
        self.queue(index).return_ticket();
        reached
    }

    /// Whether queue `other` has completed everything before position `target`, or waits itself for a later fence.
    fn has_passed(&self, other: u16, target: u16, ticket: u64) -> bool {
        let rings = self.rings();
        let Some(ring) = rings.get(usize::from(other)) else {
            return true;
        };
        let status = self.queue(other);
        if status.is_behind(ticket) {
            return true;
        }
        let state = ring.get_ref();
        let queue = state.get_queue();
        if !state.is_enabled() || !queue.ready() {
            return true;
        }
        status.has_completed(target, queue.next_avail())
    }
}
