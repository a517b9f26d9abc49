// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From a job as the driver describes it to its parts.

use std::time::Instant;

use hmm_protocol::{Job, JobFlags, JobKind};

use super::{
    atomic_add::AtomicAdd, copy::Copy, crc32c::Crc32c, fill::Fill, probe::Probe, program::Program,
    walk::Walk, work::Work,
};

/// The parts of `job`, which is valid, of this kind and accepted at `accepted`. Nothing if this device cannot do it.
pub(super) fn parts(kind: JobKind, job: &Job, accepted: Instant) -> Vec<Box<dyn Work>> {
    let argument = |index| job.argument(index);
    let part: Box<dyn Work> = match kind {
        JobKind::Fill => Box::new(Fill::new(argument(0), argument(1), argument(2))),
        JobKind::Copy => Box::new(Copy::new(argument(0), argument(1), argument(2))),
        JobKind::Crc32c => Box::new(Crc32c::new(argument(0), argument(1), argument(2))),
        JobKind::AtomicAdd => Box::new(AtomicAdd::new(
            argument(0),
            argument(1),
            argument(2),
            argument(3),
        )),
        JobKind::Walk => {
            let add = JobFlags(job.flags)
                .contains(JobFlags::WRITE)
                .then_some(argument(4));
            Box::new(Walk::new(
                argument(0),
                argument(1),
                argument(2),
                argument(3),
                add,
            ))
        }
        JobKind::Probe => Box::new(Probe::new(argument(0), argument(1), argument(2))),
        JobKind::Program => {
            return Program::harts(job, accepted)
                .map(|hart| Box::new(hart) as Box<dyn Work>)
                .collect();
        }
    };
    vec![part]
}
