// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs and their reports, from the driver's side.

use std::collections::VecDeque;

use hmm_protocol::{
    Job, JobFlags, JobKind, MapEntry, REPORT_BYTES, Report, ReportKind, Status, job_queue_first,
    report_queue,
};
use zerocopy::{FromBytes, IntoBytes};

use super::{Answer, FrontEnd, SCRATCH_BYTES, scratch};

/// Buffers that the driver posts for reports.
#[derive(Debug, Default)]
pub(super) struct ReportBuffers {
    /// Those that are posted, in their order: the device uses them in order.
    posted: VecDeque<u64>,
    next: u64,
}

impl FrontEnd {
    /// Which queue has the buffers for reports.
    pub fn report_queue(&self) -> u16 {
        report_queue(self.bulk_queues.expect("contexts were negotiated"))
    }

    /// The job queue with this number.
    pub fn job_queue(&self, number: u16) -> u16 {
        job_queue_first(self.bulk_queues.expect("contexts were negotiated")) + number
    }

    /// Posts `count` buffers for reports; at most 256 may be posted at a time.
    pub fn post_report_buffers(&mut self, count: usize) {
        let queue = self.report_queue();
        for _ in 0..count {
            let slot = self.reports.next % (SCRATCH_BYTES / REPORT_BYTES as u64);
            self.reports.next += 1;
            let at = scratch(queue) + slot * REPORT_BYTES as u64;
            self.guest.write(at, &[0xee; REPORT_BYTES]);
            let ring = &mut self.rings[usize::from(queue)];
            ring.submit(&self.guest, &[], &[(at, REPORT_BYTES as u32)]);
            self.reports.posted.push_back(at);
        }
        self.rings[usize::from(queue)].kick();
    }

    /// The buffers that were posted are no longer: the queue was set up anew.
    pub fn forget_report_buffers(&mut self) {
        self.reports.posted.clear();
    }

    /// The next report, if there is one.
    pub fn poll_report(&mut self) -> Option<Report> {
        let queue = usize::from(self.report_queue());
        let used = self.rings[queue].poll(&self.guest)?;
        Some(self.take_report(used.len))
    }

    /// Waits for the next report.
    pub fn report(&mut self) -> Report {
        let queue = usize::from(self.report_queue());
        let used = self.rings[queue].wait(&self.guest);
        self.take_report(used.len)
    }

    fn take_report(&mut self, len: u32) -> Report {
        assert_eq!(len, REPORT_BYTES as u32);
        let at = self.reports.posted.pop_front().expect("a posted buffer");
        Report::read_from_bytes(&self.guest.read(at, REPORT_BYTES)).expect("a report")
    }

    /// A job of the open session with a cookie of its own.
    pub fn job(&self, kind: JobKind, flags: JobFlags, context: u32, arguments: &[u64]) -> Job {
        Job::new(
            kind,
            flags,
            context,
            self.cookie(),
            self.generation,
            arguments,
        )
    }

    /// Submits a job on the first job queue; returns the answer.
    pub fn submit_job(&mut self, job: &Job) -> Answer {
        self.submit_job_on(self.job_queue(0), job)
    }

    /// The same on another queue.
    pub fn submit_job_on(&mut self, queue: u16, job: &Job) -> Answer {
        let record = self.submit(queue, job.as_bytes(), 0);
        self.rings[usize::from(queue)].kick();
        self.answer(queue, record, 0)
    }

    /// Submits a job, which must be accepted, and returns the next report, which must be its end. One buffer is posted for it.
    pub fn run_job(
        &mut self,
        kind: JobKind,
        flags: JobFlags,
        context: u32,
        arguments: &[u64],
    ) -> Report {
        self.run_job_with(kind, flags, context, arguments, |fault| {
            panic!("a page fault: {fault:?}")
        })
    }

    /// The same with page faults, which `answer` answers by entries of one batch.
    pub fn run_job_with(
        &mut self,
        kind: JobKind,
        flags: JobFlags,
        context: u32,
        arguments: &[u64],
        mut answer: impl FnMut(&Report) -> Vec<MapEntry>,
    ) -> Report {
        let job = self.job(kind, flags, context, arguments);
        assert_eq!(self.submit_job(&job).status(), Status::Ok);
        loop {
            self.post_report_buffers(1);
            let report = self.report();
            assert_eq!(report.cookie, job.cookie);
            assert_eq!(report.context.get(), context);
            match ReportKind::from_wire(report.kind) {
                Some(ReportKind::JobEnd) => return report,
                Some(ReportKind::Fault) => {
                    let entries = answer(&report);
                    let answered = self.change(context, &entries);
                    assert_eq!(answered.status(), Status::Ok, "{entries:?}");
                }
                None => panic!("an unknown report: {report:?}"),
            }
        }
    }
}

/// The status that a report of a job's end carries.
pub fn end_status(report: &Report) -> Status {
    assert_eq!(report.kind, ReportKind::JobEnd as u8, "{report:?}");
    Status::from_wire(report.status).expect("a status of this version")
}
