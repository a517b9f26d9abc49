// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reports that wait for a buffer of the driver.

use std::time::{Duration, Instant};

use hmm_protocol::{Report, ReportKind};
use zerocopy::byteorder::little_endian::U64;

use super::{
    Table,
    waiting::{Late, Pending},
};
use crate::inject::ReportFaults;

impl Table {
    /// Whether there are reports that nothing tried to deliver since the last call.
    pub(in crate::jobs) fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// Whether reports wait for buffers.
    pub(in crate::jobs) fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// The next report, and what injected faults want of it; it stays the next one until it is [`delivered`](Self::delivered)
    /// or [`put_off`](Self::put_off).
    pub(in crate::jobs) fn next_report(
        &mut self,
        ask: impl Fn(ReportKind) -> ReportFaults,
    ) -> Option<(Report, ReportFaults)> {
        while let Some(waiting) = self.reports.front_mut() {
            let (report, kind) = match &waiting.pending {
                Pending::Fault(number) => {
                    let fault = self.faults.get(number);
                    (fault.map(|fault| fault.report), ReportKind::Fault)
                }
                Pending::End(serial) => {
                    let entry = self.jobs.get(serial);
                    (entry.and_then(|entry| entry.report), ReportKind::JobEnd)
                }
                Pending::Again(report) => return Some((*report, ReportFaults::default())),
            };
            if let Some(mut report) = report {
                let wanted = *waiting.wanted.get_or_insert_with(|| ask(kind));
                if wanted.wrong_cookie {
                    report.cookie = U64::new(!report.cookie.get());
                }
                return Some((report, wanted));
            }
            // The job of the fault has ended.
            self.reports.pop_front();
        }
        None
    }

    /// The next report, which is this one, is on its way to the driver, or is lost because an injected fault says so.
    pub(in crate::jobs) fn delivered(
        &mut self,
        report: &Report,
        wanted: &ReportFaults,
        now: Instant,
    ) {
        if !wanted.drop {
            self.counts.reports = self.counts.reports.wrapping_add(1);
        }
        match self.reports.pop_front().map(|waiting| waiting.pending) {
            Some(Pending::Fault(number)) => {
                if let Some(fault) = self.faults.get_mut(&number) {
                    fault.told = Some(now);
                    self.deadlines
                        .insert((now + self.bounds.fault_timeout, number));
                }
            }
            Some(Pending::End(serial)) => {
                if let Some(entry) = self.jobs.remove(&serial) {
                    self.by_cookie.remove(&entry.of.cookie);
                }
            }
            Some(Pending::Again(_)) | None => {}
        }
        if wanted.duplicate {
            self.reports.push_front(Pending::Again(*report).into());
        }
    }

    /// Puts the next report off for so long, because an injected fault says so.
    pub(in crate::jobs) fn put_off(&mut self, delay: Duration, now: Instant) {
        if let Some(mut waiting) = self.reports.pop_front() {
            if let Some(wanted) = &mut waiting.wanted {
                wanted.delay = Duration::ZERO;
            }
            self.late.push((now + delay, Late::Report(waiting)));
        }
    }
}
