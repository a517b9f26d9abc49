// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What waits: page faults for an answer, reports for a buffer, and what is late for its time.

use std::time::Instant;

use hmm_protocol::{Report, Status};

use super::entry::Serial;
use crate::{inject::ReportFaults, jobs::work::End};

/// A page fault that is not answered yet.
pub(super) struct Fault {
    pub(super) serial: Serial,
    pub(super) part: usize,
    pub(super) report: Report,
    /// When the driver got the report.
    pub(super) told: Option<Instant>,
}

/// A report to come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pending {
    Fault(u64),
    End(Serial),
    /// One more of a report, because an injected fault says so.
    Again(Report),
}

/// A report that waits for a buffer, with what injected faults want of it once they were asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) pending: Pending,
    pub(super) wanted: Option<ReportFaults>,
}

impl From<Pending> for Waiting {
    fn from(pending: Pending) -> Self {
        Self {
            pending,
            wanted: None,
        }
    }
}

/// What happens later, because an injected fault says so.
#[derive(Clone, Copy, Debug)]
pub(super) enum Late {
    Start(Serial, usize),
    Report(Waiting),
}

/// An end at the address of a page fault.
pub(super) fn end_at(status: Status, fault: &Report) -> End {
    End {
        status,
        address: fault.address.get(),
        program_counter: fault.program_counter.get(),
    }
}
