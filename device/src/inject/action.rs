// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a fault does, and which queues it is about.

use std::time::Duration;

use hmm_protocol::{MAX_BULK_QUEUES, MAX_JOB_QUEUES, ReportKind, Status};

use super::config_field::ConfigField;
use crate::layout::Role;

/// What a fault does.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// The batch or entry is not executed and gets this status.
    Fail(Status),
    /// The batch or entry starts so much later.
    Delay(Duration),
    /// The used element reports this length.
    Shorten(u32),
    /// Neither the record nor the used element is written.
    Drop,
    /// The used element is written twice.
    Duplicate,
    /// The completion waits for the next one of its queue and follows it.
    Reorder,
    /// One bit of the byte at this offset of the entry's destination is inverted after the copy; or this bit of a job's result.
    Corrupt(u64),
    /// The record carries another cookie than the header.
    Cookie,
    /// The queue is not served.
    Stall,
    /// Reading device memory [`start`, `start + length`) fails with `Poison`.
    Poison {
        /// First byte.
        start: u64,
        /// Bytes.
        length: u64,
    },
    /// The configuration space says this.
    Config(ConfigField, u64),
    /// The job never starts.
    Hang,
    /// The process dies.
    Die(Step),
}

/// Where in a batch's life the process can die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The batch is read, nothing is copied.
    BeforeCopy,
    /// All is copied, no record is written.
    AfterCopy,
    /// The record is written, the used ring is not.
    AfterRecord,
    /// The used ring is written, the driver is not signalled.
    AfterUsed,
}

impl Step {
    /// Ends the process as a crash would: no destructor runs and nothing is flushed.
    pub fn die(self) -> ! {
        tracing::warn!(step = ?self, "dying because a fault says so");
        // SAFETY: raise() and _exit() take no pointers; _exit() is there in case SIGKILL could not be raised.
        unsafe {
            libc::raise(libc::SIGKILL);
            libc::_exit(137)
        }
    }
}

/// Which queues a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueScope {
    /// All.
    Any,
    /// All bulk queues.
    Bulk,
    /// All job queues.
    Jobs,
    /// One.
    One(Role),
}

impl QueueScope {
    pub(super) fn contains(self, queue: Role) -> bool {
        match self {
            Self::Any => true,
            Self::Bulk => matches!(queue, Role::Bulk(_)),
            Self::Jobs => matches!(queue, Role::Job(_)),
            Self::One(role) => role == queue,
        }
    }
}

/// What a fault counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Batches.
    Batch,
    /// Entries of batches, or pages of page lists.
    Entry,
    /// Jobs that are accepted.
    Job,
    /// Reports of page faults and of the ends of jobs.
    Report,
}

/// The queue that a name means.
pub(super) fn queue_by_name(name: &str) -> Option<QueueScope> {
    let numbered = |prefix: &str, max: u32| -> Option<u16> {
        let number: u16 = name.strip_prefix(prefix)?.parse().ok()?;
        (u32::from(number) < max).then_some(number)
    };
    match name {
        "urgent" => Some(QueueScope::One(Role::Urgent)),
        "bulk" => Some(QueueScope::Bulk),
        "mmu" => Some(QueueScope::One(Role::Mmu)),
        "report" => Some(QueueScope::One(Role::Report)),
        "job" => Some(QueueScope::Jobs),
        _ => {
            let role = match numbered("bulk", MAX_BULK_QUEUES) {
                Some(number) => Role::Bulk(number),
                None => Role::Job(numbered("job", MAX_JOB_QUEUES)?),
            };
            Some(QueueScope::One(role))
        }
    }
}

/// The name of a kind of report, as faults name it.
pub(super) const fn report_name(kind: ReportKind) -> &'static str {
    match kind {
        ReportKind::Fault => "fault",
        ReportKind::JobEnd => "job-end",
    }
}
