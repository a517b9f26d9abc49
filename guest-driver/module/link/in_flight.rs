// SPDX-License-Identifier: GPL-2.0-only

//! Batches that the device has, and what became of them.

use super::{
    answer::{
        check,
        Answer, //
    },
    request_pool::RequestPool,
    state::Link, //
};
use crate::sys::{
    services::{
        log_limit::warn_limited,
        trace::{
            self,
            BatchEvent, //
        }, //
    },
    virtio::{
        request::{
            Idle,
            Returned,
            Submitted, //
        },
        virtqueue::Queue, //
    }, //
};
use hmm_protocol::{
    Status,
    COMPLETION_BYTES, //
};
use kernel::time::{
    Delta,
    Instant,
    Monotonic, //
};

/// How long to poll for an answer before sleeping: about what it takes to sleep and wake up.
const POLL: Delta = Delta::from_micros(50);

/// A batch that the device has, or that it never got. Dropping it waits, too.
#[must_use = "the device may still touch the batch's memory"]
pub(crate) struct InFlight<'a> {
    pub(super) link: &'a Link,
    pub(super) queue: &'a Queue,
    pub(super) pool: &'a RequestPool,
    pub(super) submitted: Option<Submitted>,
    /// Whether the submission rang the doorbell.
    pub(super) rang: bool,
    /// How often the device had been started when the batch was begun.
    pub(super) epoch: u32,
    pub(super) event: BatchEvent,
    pub(super) started: Instant<Monotonic>,
}

impl<'a> InFlight<'a> {
    /// Whether the queue accepted the batch.
    pub(crate) fn is_submitted(&self) -> bool {
        self.submitted.is_some()
    }

    /// Whether the submission rang the doorbell.
    pub(crate) fn rang_doorbell(&self) -> bool {
        self.rang
    }

    /// Waits for the answer. When this returns the device does not touch any memory of the batch
    /// any more.
    pub(crate) fn wait(mut self) -> Outcome<'a> {
        self.finish()
    }

    pub(super) fn trace_done(&self, result: &'static str, entries_ok: u32) {
        let device = self.link.device();
        trace::batch_done(device, &self.event, result, entries_ok, self.started);
    }

    fn finish(&mut self) -> Outcome<'a> {
        let entries = self.event.entries as usize;
        let mut outcome = Outcome {
            pool: self.pool,
            request: None,
            entries,
            answer: None,
        };
        let Some(submitted) = self.submitted.take() else {
            return outcome;
        };
        let mut result = "ok";
        outcome.request = match self.queue.wait(submitted, POLL, self.link.timeout) {
            Returned::Used(request, used) => {
                match check(request.written(), used, self.event.cookie, entries) {
                    // It counts as not answered, and is tried again.
                    Ok(answer) if answer.without_session => {
                        result = "no_session";
                        self.link.session_lost(self.epoch);
                    }
                    Ok(answer) => {
                        self.link.answered();
                        if !answer.all_ok {
                            result = "failed";
                            self.link.events.collect(self.link);
                        }
                        outcome.answer = Some(answer);
                    }
                    Err(problem) => {
                        result = "bad_answer";
                        self.link.answered();
                        self.link.stats().protocol_errors.add(1);
                        warn_limited!(
                            self.link.device(),
                            "a batch was answered with nonsense: {}\n",
                            problem
                        );
                    }
                }
                Some(request)
            }
            Returned::Cancelled(request) => {
                result = "reset";
                Some(request)
            }
            Returned::Pending(submitted) => {
                result = "timeout";
                self.link.not_answered(submitted)
            }
        };
        self.trace_done(result, outcome.answer.map_or(0, |answer| answer.entries_ok));
        outcome
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        drop(self.finish());
    }
}

/// What became of a batch. Keeps the request until it is dropped.
pub(crate) struct Outcome<'a> {
    pool: &'a RequestPool,
    request: Option<Idle>,
    entries: usize,
    /// `None`: no entry was executed, or it is unknown which were.
    answer: Option<Answer>,
}

impl Outcome<'_> {
    /// Whether the device says that it executed the entry. Everything else is a failure.
    pub(crate) fn is_ok(&self, entry: usize) -> bool {
        if self.answer.is_none() || entry >= self.entries {
            return false;
        }
        let status = (self.request.as_ref())
            .and_then(|request| request.written().byte(COMPLETION_BYTES + entry));
        status == Some(Status::Ok.to_wire())
    }

    /// Whether the device answered at all, and sensibly.
    pub(crate) fn was_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// Whether the device says that it executed every entry.
    pub(crate) fn all_ok(&self) -> bool {
        self.answer.is_some_and(|answer| answer.all_ok)
    }

    /// Bytes that the device copied, and the time that it took, ns, if it executed everything. It
    /// is only what the device says.
    pub(crate) fn pace(&self) -> Option<(u64, u32)> {
        self.answer
            .filter(|answer| answer.all_ok)
            .map(|answer| answer.pace)
    }
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.pool.give(request);
        }
    }
}
