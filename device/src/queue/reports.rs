// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The report queue: the driver posts buffers, the device fills one for each report. Workers and executors deliver; the lock
//! of the jobs makes them take turns.

use hmm_protocol::{Features, REPORT_BYTES, Report};
use zerocopy::IntoBytes;

use super::{Worker, pop::Popped};
use crate::{device::Device, guest_memory::GuestMemory, jobs::Buffers, layout::Role, ring::Ring};

/// The buffers of the ring, for one turn.
struct Posted<'a> {
    device: &'a Device,
    index: u16,
    ring: &'a Ring,
    guest: &'a GuestMemory,
    worker: &'a mut Worker,
    closed: bool,
}

impl Buffers for Posted<'_> {
    fn take(&mut self) -> bool {
        match (self.device).pop(self.index, self.ring, self.guest, self.worker) {
            Popped::Chain => {
                self.device.queue(self.index).set_executing(false);
                self.device.note_start(self.index, self.worker);
                true
            }
            Popped::Empty => false,
            Popped::Closed => {
                self.closed = true;
                false
            }
        }
    }

    fn write(&mut self, report: &Report) -> bool {
        let chain = &self.worker.chain;
        let fits = chain.writable_bytes() >= REPORT_BYTES as u64;
        let written = fits && chain.write(self.guest, 0, report.as_bytes()).is_ok();
        let stats = self.device.stats().queue(self.index);
        let len = match written {
            true => {
                stats.events.add(1);
                if self.device.trace().is_on() {
                    self.device.trace().record_report(self.index, report);
                }
                REPORT_BYTES as u32
            }
            false => {
                stats.without_record.add(1);
                0
            }
        };
        self.worker.used.push(self.worker.chain.head, len);
        written
    }

    fn publish(&mut self) {
        (self.device).publish(self.index, self.ring, self.guest, &mut self.worker.used);
    }
}

impl Device {
    /// Fills posted buffers with waiting reports, and lets jobs run if its queue does. `ring` is that of the report queue.
    pub fn serve_reports(&self, ring: &Ring) {
        let Some(index) = self.layout().report() else {
            return;
        };
        let guest = self.gate().enter();
        let mut worker = self.reporter().lock();
        if !self.begin(index, ring, &guest) {
            return;
        }
        let is_stalled = self.engine().faults().is_stalled(Role::Report);
        if !self.engine().features().contains(Features::CONTEXTS) || is_stalled {
            return;
        }
        if !self.is_paused() {
            self.engine().jobs().resume();
        }
        loop {
            let mut posted = Posted {
                device: self,
                index,
                ring,
                guest: &guest,
                worker: &mut worker,
                closed: false,
            };
            let jobs = self.engine().jobs();
            let left = jobs.deliver(self.engine().faults(), &mut posted);
            // With nothing left to tell, kicks for new buffers are of no interest.
            if !left || posted.closed || !self.enable_kicks(index, ring, &guest) {
                return;
            }
        }
    }

    /// The same for a caller that has no ring at hand.
    pub fn deliver_reports(&self) {
        let ring = (self.layout().report())
            .and_then(|index| self.rings().get(usize::from(index)).cloned());
        if let Some(ring) = ring {
            self.serve_reports(&ring);
        }
    }
}
