// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Status codes of batches, entries, control requests and jobs.

/// What became of a batch, an entry, a control request or a job. One byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// Not executed: the driver's initial value, and what follows an error in an ORDERED batch.
    NotAttempted = 0x00,
    /// Done.
    Ok = 0x01,
    /// Unknown operation, batch kind or control kind.
    BadOp = 0x10,
    /// A flag that is not defined or not allowed here.
    BadFlags = 0x11,
    /// A reserved field is not zero.
    ReservedNonZero = 0x12,
    /// Length is zero, above the limit, not a multiple of 8, or the chain's length does not fit the header.
    BadLength = 0x13,
    /// Entry count is zero or above the limit.
    BadCount = 0x14,
    /// Device range leaves device memory or wraps.
    BadDeviceRange = 0x15,
    /// Source and destination of a device-to-device copy overlap.
    Overlap = 0x16,
    /// Guest range is not (wholly) in the memory table, wraps, or is not aligned.
    BadGuestAddress = 0x17,
    /// Virtual range wraps, is not aligned, or leaves the addresses that a context has.
    BadAddress = 0x18,
    /// The batch's generation is not the device's.
    StaleGeneration = 0x19,
    /// No session is open.
    NoSession = 0x1a,
    /// No context has that number, or one has it already, or it is beyond the limit.
    BadContext = 0x1b,
    /// No page fault with that number waits for an answer.
    BadFault = 0x1c,
    /// The device memory read is poisoned.
    Poison = 0x20,
    /// The device is paused or has no resources at the moment.
    Busy = 0x21,
    /// The job ended because nothing is mapped at the address.
    Unmapped = 0x24,
    /// The job ended because the access is not permitted at the address.
    Forbidden = 0x25,
    /// The job ended because the driver has no memory for the address.
    NoMemory = 0x26,
    /// The job ended because its page fault was not answered in time.
    FaultTimeout = 0x27,
    /// The job ended because it made no progress: each answer was followed by the same fault.
    Stalled = 0x28,
    /// The program ended at an instruction that a hart does not have.
    IllegalInstruction = 0x29,
    /// The job ended at an address that is not aligned as the access needs.
    Misaligned = 0x2a,
    /// The program ended at an EBREAK, or at an ECALL that is none.
    Breakpoint = 0x2b,
    /// The job reached its limit of instructions, nodes or time.
    Limit = 0x2c,
    /// Given up because of a reset.
    Cancelled = 0x30,
    /// The device failed in itself.
    Internal = 0x3f,
}

impl Status {
    /// All codes, in order of their value.
    pub const ALL: [Self; 28] = [
        Self::NotAttempted,
        Self::Ok,
        Self::BadOp,
        Self::BadFlags,
        Self::ReservedNonZero,
        Self::BadLength,
        Self::BadCount,
        Self::BadDeviceRange,
        Self::Overlap,
        Self::BadGuestAddress,
        Self::BadAddress,
        Self::StaleGeneration,
        Self::NoSession,
        Self::BadContext,
        Self::BadFault,
        Self::Poison,
        Self::Busy,
        Self::Unmapped,
        Self::Forbidden,
        Self::NoMemory,
        Self::FaultTimeout,
        Self::Stalled,
        Self::IllegalInstruction,
        Self::Misaligned,
        Self::Breakpoint,
        Self::Limit,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The status of a wire byte, or `None` if this version does not define it.
    pub fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == byte)
    }

    /// The wire byte.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// The name used in logs, statistics and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAttempted => "not-attempted",
            Self::Ok => "ok",
            Self::BadOp => "bad-op",
            Self::BadFlags => "bad-flags",
            Self::ReservedNonZero => "reserved-nonzero",
            Self::BadLength => "bad-length",
            Self::BadCount => "bad-count",
            Self::BadDeviceRange => "bad-device-range",
            Self::Overlap => "overlap",
            Self::BadGuestAddress => "bad-guest-address",
            Self::BadAddress => "bad-address",
            Self::StaleGeneration => "stale-generation",
            Self::NoSession => "no-session",
            Self::BadContext => "bad-context",
            Self::BadFault => "bad-fault",
            Self::Poison => "poison",
            Self::Busy => "busy",
            Self::Unmapped => "unmapped",
            Self::Forbidden => "forbidden",
            Self::NoMemory => "no-memory",
            Self::FaultTimeout => "fault-timeout",
            Self::Stalled => "stalled",
            Self::IllegalInstruction => "illegal-instruction",
            Self::Misaligned => "misaligned",
            Self::Breakpoint => "breakpoint",
            Self::Limit => "limit",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}
