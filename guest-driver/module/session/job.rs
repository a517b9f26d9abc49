// SPDX-License-Identifier: GPL-2.0-only

//! The ioctls JOB and JOB_WAIT.

use super::{
    argument::Argument,
    call::{
        Call,
        OpenSession, //
    },
    jobs::BegunJob, //
};
use crate::{
    contexts::JobListener,
    space::JobSpec,
    sys::services::eventfd::EventFd, //
};
use hmm_protocol::{
    JobKind,
    Status, //
};
use hmm_uapi::{
    Job,
    JobFlags,
    JobState,
    JobStatus,
    JobWait,
    JobWaitFlags, //
};
use kernel::prelude::*;

/// The eventfd that is told of a job's end.
struct Notify(EventFd);

impl JobListener for Notify {
    fn ended(&self) {
        self.0.signal();
    }
}

impl Call<'_> {
    pub(super) fn job(&self, session: &OpenSession, mut argument: Argument<Job>) -> Result {
        let call = argument.get_mut();
        let flags = JobFlags(call.flags);
        let notifies = flags.contains(JobFlags::EVENTFD);
        if flags.0 & !JobFlags::ALL.0 != 0 || (!notifies && call.eventfd != 0) {
            return Err(EINVAL);
        }
        let kind = u8::try_from(call.kind).ok().and_then(JobKind::from_wire);
        let wire_flags = u8::try_from(flags.0 & !JobFlags::EVENTFD.0)?;
        let spec = JobSpec {
            kind: kind.ok_or(EINVAL)?,
            flags: hmm_protocol::JobFlags(wire_flags),
            arguments: call.arguments,
        };
        self.device.engine().hibernation.wait_until_over()?;
        let process = self.process(call.pid)?;
        let listener: Option<KBox<dyn JobListener>> = if notifies {
            let eventfd = EventFd::of_descriptor(call.eventfd)?;
            Some(KBox::new(Notify(eventfd), GFP_KERNEL)?)
        } else {
            None
        };
        let begun = session.jobs.begin(self.device, &process, |space| {
            // There may be room again, whereas a page that is busy is a matter of its own.
            space.run(&spec, listener).map_err(|error| match error {
                EBUSY => EAGAIN,
                other => other,
            })
        })?;
        call.id = begun;
        argument.write()
    }
}

/// Waits for a job, which needs no device.
pub(super) fn wait(session: &OpenSession, mut argument: Argument<JobWait>) -> Result {
    let call = argument.get_mut();
    let flags = JobWaitFlags(call.flags);
    if flags.0 & !JobWaitFlags::ALL.0 != 0 || call.reserved != 0 {
        return Err(EINVAL);
    }
    let begun = session.jobs.get(call.id)?;
    if flags.contains(JobWaitFlags::CANCEL) {
        begun.cancel();
    }
    let state = tell(call, &begun)?;
    let id = call.id;
    argument.write()?;
    // Only what was told may be forgotten.
    if state != JobState::Running {
        session.jobs.forget(id);
    }
    Ok(())
}

/// Waits, and writes what became of the job.
fn tell(call: &mut JobWait, begun: &BegunJob) -> Result<JobState> {
    let Some(end) = begun.job().wait(call.timeout_ms)? else {
        call.state = JobState::Running as u32;
        return Ok(JobState::Running);
    };
    let status = JobStatus::from_raw(u32::from(end.status.to_wire()));
    let error = match status {
        Some(JobStatus::Cancelled) if begun.has_lost_memory() => ESRCH.to_errno().unsigned_abs(),
        // What a job should not end with is a fault of the device.
        status => status.unwrap_or(JobStatus::Internal).errno(),
    };
    let state = match end.status {
        Status::Ok => JobState::Done,
        Status::Cancelled if begun.is_cancelled() => JobState::Cancelled,
        _ => JobState::Failed,
    };
    call.state = state as u32;
    call.error = error;
    call.status = u32::from(end.status.to_wire());
    call.result = end.result;
    call.address = end.address;
    call.program_counter = end.program_counter;
    call.amount = end.amount;
    call.device_ns = end.device_ns;
    call.faults = u64::from(end.faults);
    Ok(state)
}
