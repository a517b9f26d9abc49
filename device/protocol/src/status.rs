// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Status codes of batches, entries and control requests.

/// What became of a batch, an entry or a control request. One byte on the wire.
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
    /// The batch's generation is not the device's.
    StaleGeneration = 0x19,
    /// No session is open.
    NoSession = 0x1a,
    /// The device memory read is poisoned.
    Poison = 0x20,
    /// The device is paused or has no resources at the moment.
    Busy = 0x21,
    /// Given up because of a reset.
    Cancelled = 0x30,
    /// The device failed in itself.
    Internal = 0x3f,
}

impl Status {
    /// All codes, in order of their value.
    pub const ALL: [Self; 16] = [
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
        Self::StaleGeneration,
        Self::NoSession,
        Self::Poison,
        Self::Busy,
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
            Self::StaleGeneration => "stale-generation",
            Self::NoSession => "no-session",
            Self::Poison => "poison",
            Self::Busy => "busy",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}
