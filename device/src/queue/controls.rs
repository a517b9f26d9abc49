// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control queue.

use hmm_protocol::{CONTROL_BYTES, CONTROL_QUEUE, SESSION_REQUEST_BYTES, Status};
use zerocopy::IntoBytes;

use super::{Worker, pop::Popped};
use crate::{device::Device, guest_memory::GuestMemory, layout::FIRST_THREAD, ring::Ring};

/// The control queue shares its worker with the urgent queue: after so many requests others have a turn.
const REQUESTS_OF_A_TURN: usize = 64;

impl Device {
    /// Serves the control queue until it is empty, or has had its turn.
    pub fn serve_control(&self, ring: &Ring, worker: &mut Worker) {
        let mut left = REQUESTS_OF_A_TURN;
        while left > 0 {
            let guest = self.gate().enter();
            if !self.begin(CONTROL_QUEUE, ring, &guest) {
                return;
            }
            loop {
                match self.pop(CONTROL_QUEUE, ring, &guest, worker) {
                    Popped::Chain => {}
                    Popped::Empty => break,
                    Popped::Closed => return,
                }
                let Some(len) = self.serve_request(&guest, worker) else {
                    self.unpop(CONTROL_QUEUE, ring);
                    break;
                };
                self.note_start(CONTROL_QUEUE, worker);
                worker.used.push(worker.chain.head, len);
                self.queue(CONTROL_QUEUE).set_executing(false);
                self.publish(CONTROL_QUEUE, ring, &guest, &mut worker.used);
                left -= 1;
                if left == 0 || self.gate().is_wanted() {
                    break;
                }
            }
            if !self.enable_kicks(CONTROL_QUEUE, ring, &guest) {
                return;
            }
        }
        // A ring that is never empty: the other queues come first, and then this one again.
        self.wake(FIRST_THREAD);
    }

    /// Executes the request that was popped and returns how much was written; nothing if the gate is wanted and the
    /// request is not done.
    fn serve_request(&self, guest: &GuestMemory, worker: &mut Worker) -> Option<u32> {
        let Worker {
            request,
            chain,
            interrupted,
            ..
        } = worker;
        let stats = self.stats().queue(CONTROL_QUEUE);
        if chain.writable_bytes() < CONTROL_BYTES as u64 {
            stats.without_record.add(1);
            return Some(0);
        }
        // One byte more than fits tells a request that is too long from one that is right.
        let read = chain.read(guest, request, SESSION_REQUEST_BYTES + 1);
        if chain.is_malformed() || read.is_err() {
            stats.malformed_chains.add(1);
            request.clear();
        }
        let is_wanted = || self.gate().is_wanted();
        let room = usize::try_from(chain.writable_bytes()).unwrap_or(usize::MAX) - CONTROL_BYTES;
        let answer = (self.engine()).control_unless(request, room, interrupted, &is_wanted)?;
        let (reply, rest) = (answer.reply, answer.rest);
        stats.record_control(Status::from_wire(reply.status).unwrap_or(Status::Internal));
        let written = (chain.write(guest, CONTROL_BYTES, &rest))
            .and_then(|()| chain.write(guest, 0, reply.as_bytes()));
        match written {
            Ok(()) => Some((CONTROL_BYTES + rest.len()) as u32),
            Err(_) => {
                stats.without_record.add(1);
                Some(0)
            }
        }
    }
}
