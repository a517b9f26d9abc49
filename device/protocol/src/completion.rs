// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The completion record of a batch.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of [`Completion`], bytes.
pub const COMPLETION_BYTES: usize = 32;
/// `first_error` of a batch without an error.
pub const NO_ERROR_INDEX: u32 = u32::MAX;

/// The first 32 bytes of the device-writable part of a chain on a batch queue. With `BatchFlags::STATUS_ARRAY` a status
/// byte for each entry follows, padded with zeros to a multiple of 8.
///
/// The device writes `status` last, after everything else of the chain, with release semantics: a driver that has set it
/// to zero may poll it. `used.len` counts the bytes written from the start of the record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Completion {
    /// `Ok` if every entry is, else the status of the batch or of the first entry that failed.
    pub status: u8,
    /// Zero in this version.
    pub flags: u8,
    /// Zero.
    pub reserved: U16,
    /// Entries whose status is `Ok`.
    pub entries_ok: U32,
    /// Bytes copied or filled by entries whose status is `Ok`.
    pub bytes_done: U64,
    /// Index of the first entry that failed; [`NO_ERROR_INDEX`] if none did or the batch failed as a whole.
    pub first_error: U32,
    /// Time that the device took for the batch, nanoseconds, saturating.
    pub device_ns: U32,
    /// The header's cookie; 0 if no header could be read.
    pub cookie: U64,
}

/// Bytes of the status array of `entries` entries, with its padding.
pub const fn status_array_bytes(entries: u32) -> usize {
    (entries as usize).next_multiple_of(8)
}
