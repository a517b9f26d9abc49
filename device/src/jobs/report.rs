// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reports as they go to the driver.

use std::time::Duration;

use hmm_protocol::{FaultAccess, Report, ReportKind};
use zerocopy::byteorder::little_endian::{U16, U32, U64};

use super::work::End;

/// What every report says of its job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Of {
    pub(super) context: u32,
    pub(super) cookie: u64,
}

/// A page fault.
pub(super) struct Fault {
    pub(super) number: u64,
    pub(super) access: FaultAccess,
    pub(super) address: u64,
    pub(super) wanted: u64,
    pub(super) program_counter: u64,
}

/// The report of a page fault.
pub(super) fn fault(of: Of, fault: &Fault) -> Report {
    Report {
        status: fault.access.0,
        value: U64::new(fault.number),
        address: U64::new(fault.address),
        amount: U64::new(fault.wanted),
        program_counter: U64::new(fault.program_counter),
        ..bare(of, ReportKind::Fault)
    }
}

/// What a job came to.
pub(super) struct Outcome {
    pub(super) end: End,
    pub(super) result: u64,
    pub(super) amount: u64,
    pub(super) time: Duration,
    pub(super) faults: u32,
}

/// The report of a job's end.
pub(super) fn end(of: Of, outcome: &Outcome) -> Report {
    Report {
        status: outcome.end.status.to_wire(),
        value: U64::new(outcome.result),
        address: U64::new(outcome.end.address),
        amount: U64::new(outcome.amount),
        program_counter: U64::new(outcome.end.program_counter),
        device_ns: U64::new(u64::try_from(outcome.time.as_nanos()).unwrap_or(u64::MAX)),
        faults: U32::new(outcome.faults),
        ..bare(of, ReportKind::JobEnd)
    }
}

fn bare(of: Of, kind: ReportKind) -> Report {
    Report {
        kind: kind as u8,
        status: 0,
        reserved: U16::new(0),
        context: U32::new(of.context),
        cookie: U64::new(of.cookie),
        value: U64::new(0),
        address: U64::new(0),
        amount: U64::new(0),
        program_counter: U64::new(0),
        device_ns: U64::new(0),
        faults: U32::new(0),
        reserved2: U32::new(0),
    }
}
