// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is counted of jobs and their page faults.

use std::{collections::BTreeMap, time::Duration};

use hmm_protocol::{JobKind, Status};
use serde::Serialize;

use crate::stats::{Histogram, HistogramSnapshot};

const KINDS: usize = JobKind::ALL.len();
const STATUSES: usize = Status::ALL.len();

/// The counters. The lock of the job table guards them, so they are plain numbers.
#[derive(Debug, Default)]
pub(super) struct Counts {
    accepted: [u64; KINDS],
    amounts: [u64; KINDS],
    ends: [u64; STATUSES],
    pub(super) faults: u64,
    pub(super) resumed: u64,
    pub(super) failed: u64,
    pub(super) timed_out: u64,
    pub(super) reports: u64,
    run: Histogram,
    answer: Histogram,
}

/// The counters of jobs at some time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JobsSnapshot {
    /// Jobs that were accepted and whose end is not reported yet, now.
    pub present: u64,
    /// Reports that wait for a buffer of the driver, now.
    pub waiting_reports: u64,
    /// Page faults that wait for the driver's answer, now.
    pub open_faults: u64,
    /// Jobs that were accepted, by kind; those that occurred.
    pub accepted: BTreeMap<&'static str, u64>,
    /// What ended jobs did, by kind: bytes, words, nodes, pages or instructions.
    pub amounts: BTreeMap<&'static str, u64>,
    /// Jobs that ended, by status.
    pub ends: BTreeMap<&'static str, u64>,
    /// Page faults.
    pub faults: u64,
    /// Page faults that the driver answered by `Resume`.
    pub resumed: u64,
    /// Page faults that the driver answered by `Fail`.
    pub failed: u64,
    /// Page faults that were not answered in time.
    pub timed_out: u64,
    /// Reports that were written to buffers of the driver.
    pub reports: u64,
    /// Time from the acceptance of a job to its end.
    pub run: HistogramSnapshot,
    /// Time from the report of a page fault to its answer.
    pub answer: HistogramSnapshot,
}

impl Counts {
    pub(super) fn accept(&mut self, kind: JobKind) {
        count(&mut self.accepted, position(kind), 1);
    }

    /// A job ended after `time`, with so much done.
    pub(super) fn end(&mut self, kind: JobKind, status: Status, amount: u64, time: Duration) {
        count(&mut self.amounts, position(kind), amount);
        let status = Status::ALL.iter().position(|known| *known == status);
        count(&mut self.ends, status, 1);
        self.run.record(time);
    }

    /// A page fault was answered `time` after its report.
    pub(super) fn answer(&mut self, time: Duration) {
        self.answer.record(time);
    }

    /// The counters, but what is present now.
    pub(super) fn snapshot(&self) -> JobsSnapshot {
        let kinds = JobKind::ALL.iter().map(|kind| kind.name());
        let statuses = Status::ALL.iter().map(|status| status.name());
        JobsSnapshot {
            accepted: occurred(kinds.clone(), &self.accepted),
            amounts: occurred(kinds, &self.amounts),
            ends: occurred(statuses, &self.ends),
            faults: self.faults,
            resumed: self.resumed,
            failed: self.failed,
            timed_out: self.timed_out,
            reports: self.reports,
            run: self.run.snapshot(),
            answer: self.answer.snapshot(),
            ..JobsSnapshot::default()
        }
    }
}

fn position(kind: JobKind) -> Option<usize> {
    JobKind::ALL.iter().position(|known| *known == kind)
}

fn count(counters: &mut [u64], index: Option<usize>, by: u64) {
    if let Some(counter) = index.and_then(|index| counters.get_mut(index)) {
        *counter = counter.wrapping_add(by);
    }
}

/// The counters that are not 0, by their names.
fn occurred(
    names: impl Iterator<Item = &'static str>,
    counters: &[u64],
) -> BTreeMap<&'static str, u64> {
    names
        .zip(counters.iter().copied())
        .filter(|(_, count)| *count > 0)
        .collect()
}
