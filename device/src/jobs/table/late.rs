// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens at a later time: faults without an answer time out, and what was to be late is done.

use std::time::Instant;

use hmm_protocol::Status;

use super::{
    Table,
    waiting::{Late, end_at},
};

impl Table {
    /// Does what is due: ends jobs whose faults were not answered in time, and starts what was to be late.
    pub(in crate::jobs) fn expire(&mut self, now: Instant) {
        while let Some((deadline, number)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(fault) = self.faults.remove(&number) {
                self.counts.timed_out = self.counts.timed_out.wrapping_add(1);
                let end = end_at(Status::FaultTimeout, &fault.report);
                self.end(fault.serial, end, now);
            }
        }
        if self.late.is_empty() {
            return;
        }
        let (due, late) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|(when, _)| *when <= now);
        self.late = late;
        for (_, what) in due {
            match what {
                Late::Start(serial, part) => self.ready.push_back((serial, part)),
                Late::Report(waiting) => {
                    self.reports.push_back(waiting);
                    self.fresh = true;
                }
            }
        }
    }

    /// When [`expire`](Self::expire) has something to do next.
    pub(in crate::jobs) fn next_deadline(&self) -> Option<Instant> {
        let late = self.late.iter().map(|(when, _)| *when);
        let fault = self.deadlines.first().map(|(when, _)| *when);
        late.chain(fault).min()
    }
}
