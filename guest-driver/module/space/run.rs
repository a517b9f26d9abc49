// SPDX-License-Identifier: GPL-2.0-only

//! Submits jobs, and cancels them.

use super::handle::Space;
use crate::{
    contexts::{
        Job,
        JobEnd,
        JobListener, //
    },
    link::Submission,
    sys::services::trace, //
};
use hmm_protocol::{
    JobFlags,
    JobKind,
    Status, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What a job is to do.
#[derive(Clone, Copy)]
pub(crate) struct JobSpec {
    /// What.
    pub(crate) kind: JobKind,
    /// How.
    pub(crate) flags: JobFlags,
    /// As the kind says; addresses are those of the space, bytes.
    pub(crate) arguments: [u64; 12],
}

impl Space {
    /// Begins a job. `listener` is told of its end. A job that the device loses, or that is ended with its space, ends
    /// with `Status::Cancelled`.
    ///
    /// # Errors
    ///
    /// `EINVAL` the arguments make no sense, `EOPNOTSUPP` the device does not do such a thing, `EBUSY` it has
    /// no room for more jobs, `ESRCH` the process has ended, `EIO` the device does not work, `ENODEV` it
    /// is gone or going, `ENOMEM`.
    pub(crate) fn run(
        &self,
        spec: &JobSpec,
        listener: Option<KBox<dyn JobListener>>,
    ) -> Result<Arc<Job>> {
        let device = self.pool().attached().ok_or(ENODEV)?;
        let (link, jobs) = (device.link(), &device.contexts().jobs);
        let (context, cookie) = (self.view().context, link.new_cookie());
        let JobSpec {
            kind,
            flags,
            arguments,
        } = *spec;
        let generation = link.generation();
        let wire = hmm_protocol::Job::new(kind, flags, context, cookie, generation, &arguments);
        let limits = link.jobs().ok_or(EOPNOTSUPP)?;
        wire.validate(limits, link.features()).map_err(error_of)?;
        let resets = self.view().ensure_context(&device)?;
        let job = Job::new(cookie, context, resets, listener)?;
        jobs.add(job.clone())?;
        let submitted = link.submit_job(&wire);
        let word = match &submitted {
            Ok(Submission::Answered(status)) => status.name(),
            Ok(Submission::Reset) => "reset",
            Err(_) => "no-answer",
        };
        trace::job_submit(device.vdev(), context, cookie, kind.name(), word);
        match submitted {
            Ok(Submission::Answered(Status::Ok)) => {
                device.stats().contexts.jobs.add(1);
                return Ok(job);
            }
            Ok(Submission::Reset) => {}
            // The context ended with a reset before the job came.
            Ok(Submission::Answered(Status::BadContext)) if link.resets() != resets => {}
            Ok(Submission::Answered(status)) => {
                jobs.remove(&job);
                return Err(error_of(status));
            }
            // The queue was closed for a reset.
            Err(error) if error == ENODEV && !link.is_dead() => {}
            Err(error) => {
                jobs.remove(&job);
                return Err(error);
            }
        }
        // The device was reset since the context was there, and works again: all jobs from before end like this.
        jobs.finish(cookie, JobEnd::without_report(Status::Cancelled));
        Ok(job)
    }

    /// Asks the device to end a job, whose end is reported as that of any other. A job whose end is not reported then
    /// counts as ended after the time that the device has for an answer.
    pub(crate) fn cancel(&self, job: &Job) {
        if job.end().is_some() {
            return;
        }
        let Some(device) = self.pool().attached() else {
            return;
        };
        match device.link().cancel_job(job.cookie()) {
            Ok(true) => job.expect_end(device.link().timeout()),
            Ok(false) => {
                let end = JobEnd::without_report(Status::Cancelled);
                device.contexts().jobs.finish(job.cookie(), end);
            }
            // A device that does not answer is reset, and that ends the job.
            Err(_) => {}
        }
    }
}

/// Why a job is refused.
fn error_of(status: Status) -> Error {
    match status {
        Status::BadOp => EOPNOTSUPP,
        Status::Busy => EBUSY,
        Status::StaleGeneration | Status::NoSession | Status::BadContext | Status::Internal => EIO,
        _ => EINVAL,
    }
}
