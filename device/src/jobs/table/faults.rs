// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Page faults of jobs, until they are answered.

use std::time::Instant;

use hmm_protocol::Status;

use super::{
    Answer, Table,
    entry::{Phase, Serial},
    waiting::{Fault, Pending, end_at},
};
use crate::{jobs::report, mmu::Miss};

impl Table {
    /// A part of a job waits for a page.
    pub(super) fn fault(
        &mut self,
        serial: Serial,
        index: usize,
        miss: &Miss,
        wanted: u64,
        program_counter: u64,
    ) {
        let Some(entry) = self.jobs.get_mut(&serial) else {
            return;
        };
        let number = self.next_fault;
        // 2^64 faults take longer than any session.
        self.next_fault = number.wrapping_add(1);
        entry.faults = entry.faults.saturating_add(1);
        if let Some(part) = entry.parts.get_mut(index) {
            part.phase = Phase::Faulted(number);
        }
        let fault = report::Fault {
            number,
            access: miss.access,
            address: miss.address,
            wanted,
            program_counter,
        };
        self.faults.insert(
            number,
            Fault {
                serial,
                part: index,
                report: report::fault(entry.of, &fault),
                told: None,
            },
        );
        self.counts.faults = self.counts.faults.wrapping_add(1);
        self.reports.push_back(Pending::Fault(number).into());
        self.fresh = true;
    }

    /// Answers page fault `number` of a job of `context`.
    ///
    /// # Errors
    /// `BadFault`: no such fault waits for an answer.
    pub(in crate::jobs) fn answer(
        &mut self,
        context: u32,
        number: u64,
        answer: Answer,
        now: Instant,
    ) -> Result<(), Status> {
        let (serial, part, report) = match self.faults.get(&number) {
            // The driver cannot know the number of a fault that it was not told.
            Some(Fault {
                serial,
                part,
                report,
                told: Some(told),
            }) if report.context.get() == context => {
                self.counts.answer(now.saturating_duration_since(*told));
                self.deadlines
                    .remove(&(*told + self.bounds.fault_timeout, number));
                (*serial, *part, *report)
            }
            _ => return Err(Status::BadFault),
        };
        self.faults.remove(&number);
        match answer {
            Answer::Resume => {
                self.counts.resumed = self.counts.resumed.wrapping_add(1);
                let entry = self.jobs.get_mut(&serial);
                if let Some(waiting) = entry.and_then(|entry| entry.parts.get_mut(part)) {
                    waiting.phase = Phase::Ready;
                    self.ready.push_back((serial, part));
                }
            }
            Answer::Fail(status) => {
                self.counts.failed = self.counts.failed.wrapping_add(1);
                self.end(serial, end_at(status, &report), now);
            }
        }
        Ok(())
    }
}
