// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Looking for the next batch for a while before a worker sleeps. How long is the business of [`PollWindow`].

use std::time::{Duration, Instant};

use vhost_user_backend::VringT;
use virtio_queue::QueueT;

use super::window::PollWindow;
use crate::{device::Device, guest_memory::GuestMemory, ring::Ring};

/// Two looks in a row take far less than this, unless the processor was taken away between them.
const TAKEN_AWAY: Duration = Duration::from_micros(50);

impl Device {
    /// Looks for the next chain of queue `index`. Returns whether there is one.
    pub(super) fn poll(&self, index: u16, ring: &Ring, window: &mut PollWindow) -> bool {
        let start = Instant::now();
        window.idle(start);
        let time = window.window(start);
        let stats = self.stats().queue(index);
        if !time.is_zero() {
            let until = start + time;
            let (mut last, mut disturbed) = (start, false);
            // Inside all the time: to enter for each look would write to memory that others read.
            let guest = self.gate().enter();
            loop {
                match self.has_chain(ring, &guest) {
                    Some(true) => {
                        stats.polls_hit.add(1);
                        window.found();
                        window.busy(Instant::now());
                        return true;
                    }
                    Some(false) => {
                        let now = Instant::now();
                        disturbed |= now.saturating_duration_since(last) >= TAKEN_AWAY;
                        if now >= until {
                            break;
                        }
                        last = now;
                        for _ in 0..16 {
                            std::hint::spin_loop();
                        }
                    }
                    None => break,
                }
            }
            stats.polls_missed.add(1);
            if disturbed {
                window.disturbed(Instant::now());
            }
        }
        false
    }

    /// Whether a ring has a chain; nothing if it is of no use to look on.
    fn has_chain(&self, ring: &Ring, guest: &GuestMemory) -> Option<bool> {
        if self.gate().is_wanted() {
            return None;
        }
        let state = ring.get_ref();
        let queue = state.get_queue();
        if !state.is_enabled() || !queue.ready() {
            return None;
        }
        let available = queue
            .avail_idx(guest.mappings(), std::sync::atomic::Ordering::Acquire)
            .ok()?;
        Some(available.0 != queue.next_avail())
    }
}
