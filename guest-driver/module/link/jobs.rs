// SPDX-License-Identifier: GPL-2.0-only

//! Submits jobs.

use super::state::Link;
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

impl Link {
    /// A number that no other request or job has.
    pub(crate) fn new_cookie(&self) -> u64 {
        self.next_cookie()
    }

    /// Hands a job to the device, and waits until it is accepted ([`Status::Ok`]) or refused. An accepted
    /// job's end is reported.
    ///
    /// # Errors
    ///
    /// `EIO` no answer, or one that makes no sense: whether the job runs is not known, and the device is
    /// started anew; `ENODEV` there is no device.
    pub(crate) fn submit_job(&self, job: &Job) -> Result<Status> {
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
                self.answered();
                let answer = check(request.written(), used, job.cookie.get());
                (Some(request), answer)
            }
            Returned::Cancelled(request) => (Some(request), Err("the device was reset")),
            Returned::Pending(submitted) => (self.not_answered(submitted), Err("no answer")),
        };
        if let Some(request) = request {
            self.submissions.give(request);
        }
        answer.map_err(|problem| {
            if self.resets() == resets {
                self.stats().protocol_errors.add(1);
                warn_limited!(
                    self.device(),
                    "a job was answered with nonsense: {}\n",
                    problem
                );
                self.repair(resets);
            }
            EIO
        })
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
