// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How far the batch queues are, for the supervisor of the device's process.

use std::sync::atomic::Ordering;

use serde::Serialize;
use vhost_user_backend::VringT;
use virtio_queue::QueueT;

use crate::{device::Device, layout::Role};

/// How far a batch queue is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The queue's name.
    pub queue: String,
    /// The position behind the last completion, modulo 65536. It changes with each.
    pub completed: u16,
    /// Whether something was made available that has no completion yet.
    pub is_waiting: bool,
}

impl Device {
    /// How far the control queue and the batch queues are, without those that are not set up. Waits while the driver stops
    /// a queue.
    pub fn progress(&self) -> Vec<Progress> {
        let guest = self.gate().enter();
        let rings = self.rings();
        let progress = |(index, ring): (u16, &crate::ring::Ring)| {
            match self.layout().role(index)? {
                // What is available there waits until there is something to tell.
                Role::Event | Role::Report => return None,
                Role::Control | Role::Urgent | Role::Bulk(_) | Role::Mmu | Role::Job(_) => {}
            }
            if self.queue(index).is_broken()
                || !ring.examine(&guest).is_ok_and(|is_set_up| is_set_up)
            {
                return None;
            }
            let state = ring.get_ref();
            let queue = state.get_queue();
            let available = queue.avail_idx(guest.mappings(), Ordering::Acquire).ok()?;
            Some(Progress {
                queue: self.layout().name(index),
                completed: queue.next_used(),
                is_waiting: available.0 != queue.next_used(),
            })
        };
        (0..).zip(rings.iter()).filter_map(progress).collect()
    }
}
