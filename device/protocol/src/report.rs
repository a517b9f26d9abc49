// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The report queue: page faults of jobs, and the ends of jobs.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of [`Report`], bytes.
pub const REPORT_BYTES: usize = 64;

/// What is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReportKind {
    /// A job waits for a page. The driver answers by `MapOp::Resume` or `MapOp::Fail`.
    Fault = 1,
    /// A job ended.
    JobEnd = 2,
}

impl ReportKind {
    /// The kind of a wire byte.
    pub const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Fault),
            2 => Some(Self::JobEnd),
            _ => None,
        }
    }
}

/// What a job wanted to do when it faulted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultAccess(pub u8);

impl FaultAccess {
    /// To read.
    pub const READ: Self = Self(1 << 0);
    /// To write.
    pub const WRITE: Self = Self(1 << 1);
    /// To read and write atomically.
    pub const ATOMIC: Self = Self(1 << 2);
    /// To fetch an instruction.
    pub const FETCH: Self = Self(1 << 3);
}

/// What the device writes into a buffer of the report queue. None is dropped: where there is no buffer, the job waits with its
/// report until there is one.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Report {
    /// A [`ReportKind`]. A driver ignores a kind that it does not know.
    pub kind: u8,
    /// `JobEnd`: a [`crate::Status`]. `Fault`: [`FaultAccess`], one of its bits.
    pub status: u8,
    /// Zero.
    pub reserved: U16,
    /// Number of the context.
    pub context: U32,
    /// The job's cookie.
    pub cookie: U64,
    /// `Fault`: number of the fault, never 0 and never used twice in a session. `JobEnd`: the result of the job.
    pub value: U64,
    /// `Fault`: the virtual address, bytes. `JobEnd`: the first address that could not be accessed, or 0.
    pub address: U64,
    /// `Fault`: bytes that the job is going to access from `address` on, as far as it knows; at least 1. `JobEnd`: what was
    /// done: bytes, words, nodes, pages or instructions.
    pub amount: U64,
    /// The program counter of a program, for the end that of the hart which ended it; else 0.
    pub program_counter: U64,
    /// `JobEnd`: time from acceptance to the end, nanoseconds. Else 0.
    pub device_ns: U64,
    /// `JobEnd`: page faults of the job, saturating. Else 0.
    pub faults: U32,
    /// Zero.
    pub reserved2: U32,
}
