// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A job in the table, and its parts.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use hmm_protocol::{JobFlags, JobKind, Report};

use crate::{
    inject::JobFaults,
    jobs::{
        report::Of,
        work::{End, Work},
    },
    mmu::Context,
};

/// A job whose faults are all answered and that makes no progress ends after so many, if they took [`STALL_TIME`] or more.
pub(super) const STALL_FAULTS: u32 = 100;
/// The least time in which faults without progress end a job. An honest driver under a storm of invalidations needs some.
pub(super) const STALL_TIME: Duration = Duration::from_secs(1);

/// Names a job for ever, other than its cookie.
pub(super) type Serial = u64;

/// A job as it is accepted.
pub(in crate::jobs) struct NewJob {
    pub(in crate::jobs) kind: JobKind,
    pub(in crate::jobs) flags: JobFlags,
    pub(in crate::jobs) cookie: u64,
    pub(in crate::jobs) context: Arc<Context>,
    /// At least one.
    pub(in crate::jobs) parts: Vec<Box<dyn Work>>,
    /// What injected faults want of it.
    pub(in crate::jobs) wishes: JobFaults,
}

/// Where a part of a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for an executor, or until it may start.
    Ready,
    /// An executor works on it.
    Running,
    /// It waits for the answer to this page fault.
    Faulted(u64),
    /// It is over.
    Ended,
}

/// What one executor at a time works on.
pub(super) struct Part {
    /// Not while an executor works on it.
    pub(super) work: Option<Box<dyn Work>>,
    pub(super) phase: Phase,
    /// What it had done when it last faulted, since when, and how many faults ago.
    stall: Option<(u64, Instant, u32)>,
}

/// A job that was accepted and whose end was not reported yet.
pub(super) struct Entry {
    pub(super) of: Of,
    pub(super) kind: JobKind,
    pub(super) no_fault: bool,
    pub(super) context: Arc<Context>,
    pub(super) accepted: Instant,
    pub(super) faults: u32,
    pub(super) parts: Vec<Part>,
    /// How the job ends, when all parts are back.
    pub(super) end: Option<End>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) wishes: JobFaults,
    /// The report of its end, once that is certain.
    pub(super) report: Option<Report>,
}

impl Entry {
    /// A job whose parts may all start.
    pub(super) fn new(job: NewJob, now: Instant) -> Self {
        let NewJob {
            kind,
            flags,
            cookie,
            context,
            parts,
            wishes,
        } = job;
        Self {
            of: Of {
                context: context.number(),
                cookie,
            },
            kind,
            no_fault: flags.contains(JobFlags::NO_FAULT),
            context,
            accepted: now,
            faults: 0,
            parts: parts.into_iter().map(Part::new).collect(),
            end: None,
            stop: Arc::default(),
            wishes,
            report: None,
        }
    }
}

impl Part {
    fn new(work: Box<dyn Work>) -> Self {
        Self {
            work: Some(work),
            phase: Phase::Ready,
            stall: None,
        }
    }

    /// Counts a fault of a part that has done so much; whether it is one too many without progress.
    pub(super) fn is_stalled(&mut self, amount: u64, now: Instant) -> bool {
        match &mut self.stall {
            Some((before, since, count)) if *before == amount => {
                *count = count.saturating_add(1);
                *count >= STALL_FAULTS && now.saturating_duration_since(*since) >= STALL_TIME
            }
            stall => {
                *stall = Some((amount, now, 1));
                false
            }
        }
    }
}
