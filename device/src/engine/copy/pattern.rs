// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the pieces of a batch lie in memory.

use hmm_protocol::Op;
use serde::Serialize;

/// Contiguous pieces of at least this many bytes are extents.
const EXTENT_BYTES: u64 = 64 << 10;

/// What the copies of one batch have in common. Each pattern has a routine of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// Scattered pages of 4 KiB are read and stored side by side: small pages to the device.
    Gather,
    /// Pages that lie side by side are stored at scattered places: small pages to system memory.
    Scatter,
    /// Long contiguous pieces: huge pages, in both directions.
    Extents,
}

impl Pattern {
    /// All of them, in the order in which they are numbered.
    pub const ALL: [Self; 3] = [Self::Gather, Self::Scatter, Self::Extents];

    /// The name in logs and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gather => "gather",
            Self::Scatter => "scatter",
            Self::Extents => "extents",
        }
    }

    /// The pattern of a transfer of `len` bytes.
    #[inline]
    pub fn of(op: Op, len: u64) -> Self {
        match op {
            _ if len >= EXTENT_BYTES => Self::Extents,
            Op::ToSystem => Self::Scatter,
            Op::ToDevice | Op::Copy | Op::Fill | Op::Nop => Self::Gather,
        }
    }
}
