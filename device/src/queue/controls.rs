// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control queue.

use hmm_protocol::{CONTROL_BYTES, CONTROL_QUEUE, SESSION_REQUEST_BYTES, Status};
use zerocopy::IntoBytes;

use super::{Worker, pop::Popped};
use crate::{device::Device, guest_memory::GuestMemory, ring::Ring};

impl Device {
    /// Serves the control queue until it is empty.
    pub fn serve_control(&self, ring: &Ring, worker: &mut Worker) {
        loop {
            let guest = self.gate().enter();
            self.disable_kicks(ring, &guest);
            loop {
                match self.pop(CONTROL_QUEUE, ring, &guest, worker) {
                    Popped::Chain => {}
                    Popped::Empty => break,
                    Popped::Closed => return,
                }
                self.note_start(CONTROL_QUEUE, worker);
                let len = self.serve_request(&guest, &mut worker.request, &worker.chain);
                worker.used.push(worker.chain.head, len);
                self.queue(CONTROL_QUEUE).set_executing(false);
                self.publish(CONTROL_QUEUE, ring, &guest, &mut worker.used);
            }
            if !self.enable_kicks(CONTROL_QUEUE, ring, &guest) {
                return;
            }
        }
    }

    /// Executes one request and returns how much was written.
    fn serve_request(
        &self,
        guest: &GuestMemory,
        request: &mut Vec<u8>,
        chain: &super::chain::Chain,
    ) -> u32 {
        let stats = self.stats().queue(CONTROL_QUEUE);
        if chain.writable_bytes() < CONTROL_BYTES as u64 {
            stats.without_record.add(1);
            return 0;
        }
        // One byte more than fits tells a request that is too long from one that is right.
        let read = chain.read(guest, request, SESSION_REQUEST_BYTES + 1);
        if chain.is_malformed() || read.is_err() {
            stats.malformed_chains.add(1);
            request.clear();
        }
        let reply = self.engine().control(request);
        stats.record_control(Status::from_wire(reply.status).unwrap_or(Status::Internal));
        match chain.write(guest, 0, reply.as_bytes()) {
            Ok(()) => CONTROL_BYTES as u32,
            Err(_) => {
                stats.without_record.add(1);
                0
            }
        }
    }
}
