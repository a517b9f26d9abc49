// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The event queue: the driver posts buffers, the device fills one for each event.

use hmm_protocol::{EVENT_BYTES, EVENT_QUEUE, Event, EventKind, Features};
use zerocopy::IntoBytes;

use super::{Worker, pop::Popped};
use crate::{device::Device, ring::Ring};

impl Device {
    fn next_event(&self) -> Option<Event> {
        match self.events().next() {
            Ok(event) => Some(event),
            Err(0) => None,
            Err(lost) => Some(self.event(EventKind::Lost, 0, lost)),
        }
    }

    /// Fills posted buffers with waiting events.
    pub fn serve_events(&self, ring: &Ring, worker: &mut Worker) {
        let is_served = self.engine().features().contains(Features::EVENT_QUEUE);
        let guest = self.gate().enter();
        // Even with nothing to tell, a ring that makes no sense is found now.
        if !self.begin(EVENT_QUEUE, ring, &guest) || self.events().is_empty() || !is_served {
            return;
        }
        loop {
            let mut closed = false;
            while !self.events().is_empty() {
                match self.pop(EVENT_QUEUE, ring, &guest, worker) {
                    Popped::Chain => {}
                    Popped::Empty => break,
                    Popped::Closed => {
                        closed = true;
                        break;
                    }
                }
                self.queue(EVENT_QUEUE).set_executing(false);
                if worker.chain.writable_bytes() < EVENT_BYTES as u64 {
                    self.note_start(EVENT_QUEUE, worker);
                    self.stats().queue(EVENT_QUEUE).without_record.add(1);
                    worker.used.push(worker.chain.head, 0);
                    continue;
                }
                let Some(event) = self.next_event() else {
                    self.unpop(EVENT_QUEUE, ring);
                    break;
                };
                self.note_start(EVENT_QUEUE, worker);
                let len = match worker.chain.write(&guest, 0, event.as_bytes()) {
                    Ok(()) => {
                        self.stats().queue(EVENT_QUEUE).events.add(1);
                        EVENT_BYTES as u32
                    }
                    Err(_) => {
                        self.stats().queue(EVENT_QUEUE).without_record.add(1);
                        0
                    }
                };
                worker.used.push(worker.chain.head, len);
            }
            // What was told before the queue closed is this queue's too, and the set is the worker's for all of them.
            self.publish(EVENT_QUEUE, ring, &guest, &mut worker.used);
            // With nothing left to tell, kicks for new buffers are of no interest.
            if closed || self.events().is_empty() || !self.enable_kicks(EVENT_QUEUE, ring, &guest) {
                return;
            }
        }
    }
}
