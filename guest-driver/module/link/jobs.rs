// SPDX-License-Identifier: GPL-2.0-only

//! Submits jobs.

use super::{
    answer::is_without_session,
    state::Link,
    why::Why, //
};
use crate::sys::{
    services::log_limit::warn_limited,
    virtio::request::{
        Returned,
        Written, //
    }, //
};
use hmm_protocol::{
    Completion,
    Job,
    Status,
    COMPLETION_BYTES,
    JOB_BYTES, //
};
use kernel::{
    prelude::*,
    time::Delta, //
};
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

/// How long to poll for an answer before sleeping.
const POLL: Delta = Delta::from_micros(50);

/// What became of a job that was handed to the device.
pub(crate) enum Submission {
    /// It was accepted ([`Status::Ok`]) or refused.
    Answered(Status),
    /// The device was reset before it answered. The job does not run any more; it may have, in part.
    Reset,
}

impl Link {
    /// A number that no other request or job has.
    pub(crate) fn new_cookie(&self) -> u64 {
        self.next_cookie()
    }

    /// Hands a job to the device, and waits until it is accepted or refused. An accepted job's end is reported.
    ///
    /// # Errors
    ///
    /// `EIO` no answer, or one that makes no sense: whether the job runs is not known, and the device is
    /// started anew; `ENODEV` the device never had it, since it is being started anew or is gone.
    pub(crate) fn submit_job(&self, job: &Job) -> Result<Submission> {
        self.ready()?;
        let (epoch, resets) = (self.epoch(), self.resets());
        let queue = self.job_queue()?;
        let mut request = self.submissions.take();
        request.readable().copy_from_slice(job.as_bytes());
        request.clear_written(COMPLETION_BYTES);
        let submitted = match queue.submit(request, JOB_BYTES, COMPLETION_BYTES) {
            Ok((submitted, _)) => submitted,
            Err((error, request)) => {
                self.submissions.give(request);
                if error == EIO {
                    self.queue_broken(epoch);
                }
                return Err(error);
            }
        };
        let (request, answer) = match queue.wait(submitted, POLL, self.timeout) {
            Returned::Used(request, used) => {
                let answer = check(request.written(), used, job.cookie.get());
                if !answer.is_ok_and(is_without_session) {
                    self.answered();
                }
                (Some(request), answer)
            }
            Returned::Cancelled(request) => {
                self.submissions.give(request);
                return Ok(Submission::Reset);
            }
            Returned::Pending(submitted) => (self.not_answered(submitted), Err("no answer")),
        };
        if let Some(request) = request {
            self.submissions.give(request);
        }
        match answer {
            Ok(status) if is_without_session(status) => {
                if self.resets() == resets {
                    self.repair(resets, Why::NoSession);
                }
                Ok(Submission::Reset)
            }
            Ok(status) => Ok(Submission::Answered(status)),
            Err(problem) => {
                if self.resets() == resets {
                    self.stats().protocol_errors.add(1);
                    warn_limited!(
                        self.device(),
                        "a job was answered with nonsense: {}\n",
                        problem
                    );
                    self.repair(resets, Why::NoAnswer);
                }
                Err(EIO)
            }
        }
    }
}

/// Checks an answer.
fn check(
    written: Written<'_>,
    used: u32,
    cookie: u64,
) -> core::result::Result<Status, &'static str> {
    let record: [u8; COMPLETION_BYTES] = written.read().ok_or("short buffer")?;
    let record = Completion::read_from_bytes(&record).map_err(|_| "short buffer")?;
    let status = Status::from_wire(record.status).ok_or("unknown status")?;
    if used as usize != COMPLETION_BYTES {
        return Err("wrong length");
    }
    // A job of which no header could be read has no cookie.
    let is_other = record.cookie.get() != cookie;
    if is_other && (status == Status::Ok || record.cookie.get() != 0) {
        return Err("another job's cookie");
    }
    if status == Status::NotAttempted || (status == Status::Ok) != (record.entries_ok.get() == 1) {
        return Err("neither accepted nor refused");
    }
    Ok(status)
}
