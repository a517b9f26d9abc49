// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults of jobs and of their reports.

use std::time::Duration;

use hmm_protocol::{JobKind, ReportKind, Status};

use super::{
    Faults,
    action::{Action, Unit, report_name},
};
use crate::layout::Role;

/// What the faults want of one job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobFaults {
    /// End it at once with this status.
    pub fail: Option<Status>,
    /// Start it later.
    pub delay: Duration,
    /// Never start it.
    pub hang: bool,
    /// The bits of its result that are inverted.
    pub invert: u64,
}

/// What the faults want of one report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportFaults {
    /// Lose it.
    pub drop: bool,
    /// Deliver it twice.
    pub duplicate: bool,
    /// Deliver it later.
    pub delay: Duration,
    /// Report another cookie.
    pub wrong_cookie: bool,
}

impl Faults {
    /// What to do to a job of this kind that comes on `queue`.
    pub fn job(&self, queue: Role, kind: JobKind) -> JobFaults {
        let mut wanted = JobFaults::default();
        if !self.any() {
            return wanted;
        }
        for action in self.fired(Unit::Job, queue, kind.name()) {
            match action {
                Action::Fail(status) => wanted.fail = Some(status),
                Action::Delay(time) => wanted.delay += time,
                Action::Hang => wanted.hang = true,
                Action::Corrupt(bit) => wanted.invert ^= 1 << (bit % 64),
                _ => {}
            }
        }
        wanted
    }

    /// What to do to a report of this kind.
    pub fn report(&self, kind: ReportKind) -> ReportFaults {
        let mut wanted = ReportFaults::default();
        if !self.any() {
            return wanted;
        }
        for action in self.fired(Unit::Report, Role::Report, report_name(kind)) {
            match action {
                Action::Drop => wanted.drop = true,
                Action::Duplicate => wanted.duplicate = true,
                Action::Delay(time) => wanted.delay += time,
                Action::Cookie => wanted.wrong_cookie = true,
                _ => {}
            }
        }
        wanted
    }

    fn fired(&self, unit: Unit, queue: Role, op: &'static str) -> Vec<Action> {
        (self.table.lock().faults.iter_mut())
            .filter_map(|fault| fault.fires(unit, queue, Some(op)).then_some(fault.action))
            .collect()
    }
}
