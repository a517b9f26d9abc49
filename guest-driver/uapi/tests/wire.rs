// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The driver passes kinds, flags and ends of jobs on as they are: the numbers of both interfaces are the same.

use hmm_uapi::{JobFlags, JobKind, JobStatus};

#[test]
fn kinds_and_flags_of_jobs_have_the_numbers_of_the_wire() {
    for kind in JobKind::ALL {
        let byte = u8::try_from(kind as u32).unwrap();
        let wire = hmm_protocol::JobKind::from_wire(byte).unwrap();
        assert_eq!(wire.name(), kind.name());
        assert_eq!(JobKind::from_raw(kind as u32), Some(kind));
    }
    assert_eq!(JobKind::ALL.len(), hmm_protocol::JobKind::ALL.len());
    for (own, wire) in [
        (JobFlags::NO_FAULT, hmm_protocol::JobFlags::NO_FAULT),
        (JobFlags::WRITE, hmm_protocol::JobFlags::WRITE),
    ] {
        assert_eq!(own.0, u32::from(wire.0));
    }
}

#[test]
fn ends_of_jobs_have_the_numbers_of_the_wire() {
    for status in JobStatus::ALL {
        let byte = u8::try_from(status as u32).unwrap();
        let wire = hmm_protocol::Status::from_wire(byte).unwrap();
        assert_eq!(wire.name(), status.name());
        assert_eq!(JobStatus::from_raw(status as u32), Some(status));
    }
}
