// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests of the job queues: from their bytes to a job that was accepted or refused.

use std::time::Instant;

use hmm_protocol::{Completion, Job as WireJob, JobKind, NO_ERROR_INDEX, Status};
use zerocopy::{
    FromBytes,
    byteorder::little_endian::{U16, U32, U64},
};

use super::{Engine, Job, Report, Workspace, wait::wait};
use crate::inject::Step;

impl Engine {
    /// Accepts or refuses the job in `request`, which is the whole device-readable part of a chain in private memory.
    pub fn submit(&self, request: &[u8], job: &Job<'_>, workspace: &mut Workspace) -> Report {
        let started = Instant::now();
        workspace.reset(0);
        let wanted = (self.faults).batch(job.role, Self::job_kind(request).map(JobKind::name));
        if !wanted.delay.is_zero() {
            wait(wanted.delay, job);
        }
        if wanted.die == Some(Step::BeforeCopy) {
            Step::BeforeCopy.die();
        }
        let accepted = match wanted.fail {
            Some(status) => Err(status),
            None => self.accept(request, job),
        };
        if wanted.die == Some(Step::AfterCopy) {
            Step::AfterCopy.die();
        }
        // The cookie of a job is where that of a batch is.
        let cookie = Self::cookie_of(request);
        let status = accepted.err().unwrap_or(Status::Ok);
        let elapsed = started.elapsed();
        Report {
            completion: Completion {
                status: status.to_wire(),
                flags: 0,
                reserved: U16::new(0),
                entries_ok: U32::new(u32::from(status == Status::Ok)),
                bytes_done: U64::new(0),
                first_error: U32::new(NO_ERROR_INDEX),
                device_ns: U32::new(u32::try_from(elapsed.as_nanos()).unwrap_or(u32::MAX)),
                cookie: U64::new(if wanted.wrong_cookie { !cookie } else { cookie }),
            },
            with_statuses: false,
            status,
            delivery: wanted.delivery,
            measured: elapsed.saturating_sub(wanted.delay),
        }
    }

    /// The kind of the job in a request.
    pub fn job_kind(request: &[u8]) -> Option<JobKind> {
        JobKind::from_wire(*request.first()?)
    }

    fn accept(&self, request: &[u8], job: &Job<'_>) -> Result<(), Status> {
        let wire = WireJob::read_from_bytes(request).map_err(|_| Status::BadLength)?;
        let kind = wire.validate(&self.shape.jobs, self.features())?;
        // Held to the end: a session that closes meanwhile takes the job with it.
        let session = self.session.read();
        session.check(wire.generation.get())?;
        let context = (self.contexts.get(wire.context.get())).ok_or(Status::BadContext)?;
        (self.jobs).submit(&wire, kind, context, job.role, &self.faults)
    }
}
