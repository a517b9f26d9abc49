// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Events: what the device tells without being asked.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of [`Event`], bytes.
pub const EVENT_BYTES: usize = 32;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// The generation changed; `value` is the new one.
    Generation = 1,
    /// A queue is broken by what the driver put into it; `queue` names it.
    QueueBroken = 2,
    /// Device memory at offset `value` (bytes) is poisoned.
    Poison = 3,
    /// Events were lost because no buffer was posted; `value` counts them.
    Lost = 4,
}

impl EventKind {
    /// The kind of a wire byte.
    pub const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Generation),
            2 => Some(Self::QueueBroken),
            3 => Some(Self::Poison),
            4 => Some(Self::Lost),
            _ => None,
        }
    }
}

/// What the device writes into a buffer of the event queue.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Event {
    /// An [`EventKind`]. A driver ignores a kind that it does not know.
    pub kind: u8,
    /// Zero.
    pub flags: u8,
    /// Index of the queue concerned, else zero.
    pub queue: U16,
    /// Zero.
    pub reserved: U32,
    /// As the kind says.
    pub value: U64,
    /// The generation at the time.
    pub generation: U64,
    /// Zero.
    pub reserved2: U64,
}
