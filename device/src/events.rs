// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Events that the driver has not been told yet. `queue/events.rs` tells them.

use std::collections::VecDeque;

use hmm_protocol::Event;
use parking_lot::Mutex;

/// Events that may wait for buffers. Whatever comes on top is counted and told as one `Lost` event.
const MAX_WAITING: usize = 64;

/// Events that the driver has not been told yet.
#[derive(Debug, Default)]
pub struct EventLog {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    lost: u64,
}

impl EventLog {
    /// Adds an event.
    pub fn push(&self, event: Event) {
        let mut waiting = self.waiting.lock();
        if waiting.events.len() < MAX_WAITING {
            waiting.events.push_back(event);
        } else {
            waiting.lost += 1;
        }
    }

    /// Forgets all: there is a new driver.
    pub fn clear(&self) {
        *self.waiting.lock() = Waiting::default();
    }

    /// Whether no event waits.
    pub(crate) fn is_empty(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.events.is_empty() && waiting.lost == 0
    }

    /// The next event, or else how many were lost.
    pub(crate) fn next(&self) -> Result<Event, u64> {
        let mut waiting = self.waiting.lock();
        match waiting.events.pop_front() {
            Some(event) => Ok(event),
            None => Err(std::mem::take(&mut waiting.lost)),
        }
    }
}
