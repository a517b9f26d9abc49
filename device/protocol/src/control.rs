// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The control queue: one request and one reply a chain, one at a time.

use crate::{Features, Status};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of [`ControlRequest`] and of [`ControlReply`], bytes.
pub const CONTROL_BYTES: usize = 32;
/// Size of [`SessionRequest`], bytes.
pub const SESSION_REQUEST_BYTES: usize = 48;

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ControlKind {
    /// Answers with the generation.
    Ping = 0x80,
    /// Opens a session, which every batch needs. Without `ADOPT` the device discards all its memory, takes a new
    /// generation and answers with it. With `ADOPT`, `argument0` must be the generation that the memory has, and the key
    /// that with which its session was opened: contents stay, and the answer is the same generation; otherwise
    /// `StaleGeneration`, and no session is open. With [`Features::SESSION_KEY`] the request is a [`SessionRequest`].
    SessionOpen = 0x81,
    /// Discards device memory [`argument0`, `argument0` + `argument1`), bytes, multiples of the page size. It reads as
    /// zero afterwards.
    Discard = 0x82,
    /// Creates context `argument0` with empty page tables. Needs an open session.
    ContextCreate = 0x83,
    /// Ends all jobs of context `argument0` with `Cancelled` and drops its page tables. When the answer is there, nothing
    /// of the context touches memory.
    ContextDestroy = 0x84,
    /// Ends the job with the cookie `argument0` with `Cancelled`. Its end is reported as that of any other job. `Ok` also if there
    /// is no such job: it may have ended just now.
    JobCancel = 0x85,
    /// Behind the reply come two bitmaps of `argument1` bits each, one bit for each block of 2 MiB of device memory from block
    /// `argument0` on, lowest bit first: which blocks jobs accessed, and which they wrote. With
    /// [`AccessFlags::CLEAR`] the bits are cleared as they are read. `argument1` is a multiple of 64, 64 to 32768; bits
    /// beyond the end of device memory are 0.
    AccessBits = 0x86,
}

impl ControlKind {
    /// The kind of a wire byte.
    pub const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            0x80 => Some(Self::Ping),
            0x81 => Some(Self::SessionOpen),
            0x82 => Some(Self::Discard),
            0x83 => Some(Self::ContextCreate),
            0x84 => Some(Self::ContextDestroy),
            0x85 => Some(Self::JobCancel),
            0x86 => Some(Self::AccessBits),
            _ => None,
        }
    }

    /// What a driver must have negotiated to ask for it.
    const fn feature(self) -> Features {
        match self {
            Self::Ping | Self::SessionOpen => Features(0),
            Self::Discard => Features::DISCARD,
            Self::ContextCreate | Self::ContextDestroy | Self::JobCancel => Features::CONTEXTS,
            Self::AccessBits => Features::ACCESS_BITS,
        }
    }
}

/// Flags of [`ControlKind::AccessBits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessFlags(pub u8);

impl AccessFlags {
    /// Clear the bits that are read.
    pub const CLEAR: Self = Self(1 << 0);
}

/// Flags of [`ControlKind::SessionOpen`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionFlags(pub u8);

impl SessionFlags {
    /// Keep the contents of generation `argument0`.
    pub const ADOPT: Self = Self(1 << 0);
}

/// The device-readable part of a chain on the control queue.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ControlRequest {
    /// A [`ControlKind`].
    pub kind: u8,
    /// Flags of the kind.
    pub flags: u8,
    /// Zero.
    pub reserved: U16,
    /// Zero.
    pub reserved2: U32,
    /// Echoed in the reply.
    pub cookie: U64,
    /// First argument of the kind, else zero.
    pub argument0: U64,
    /// Second argument of the kind, else zero.
    pub argument1: U64,
}

impl ControlRequest {
    /// A request.
    pub fn new(kind: ControlKind, flags: u8, cookie: u64, argument0: u64, argument1: u64) -> Self {
        Self {
            kind: kind as u8,
            flags,
            reserved: U16::new(0),
            reserved2: U32::new(0),
            cookie: U64::new(cookie),
            argument0: U64::new(argument0),
            argument1: U64::new(argument1),
        }
    }

    /// Checks every field for a driver that negotiated `features`; `memory_bytes` bounds a discard.
    ///
    /// # Errors
    /// The [`Status`] of the reply.
    pub fn validate(&self, memory_bytes: u64, features: Features) -> Result<ControlKind, Status> {
        let kind = ControlKind::from_wire(self.kind).ok_or(Status::BadOp)?;
        if !features.contains(kind.feature()) {
            return Err(Status::BadOp);
        }
        let allowed = match kind {
            ControlKind::SessionOpen => SessionFlags::ADOPT.0,
            ControlKind::AccessBits => AccessFlags::CLEAR.0,
            _ => 0,
        };
        if self.flags & !allowed != 0 {
            return Err(Status::BadFlags);
        }
        if self.reserved.get() != 0 || self.reserved2.get() != 0 {
            return Err(Status::ReservedNonZero);
        }
        let (first, second) = (self.argument0.get(), self.argument1.get());
        match kind {
            ControlKind::Ping if first != 0 || second != 0 => Err(Status::ReservedNonZero),
            ControlKind::SessionOpen if second != 0 || (self.flags == 0 && first != 0) => {
                Err(Status::ReservedNonZero)
            }
            ControlKind::Discard => match first.checked_add(second) {
                Some(end)
                    if end <= memory_bytes
                        && second != 0
                        && first % 4096 == 0
                        && second % 4096 == 0 =>
                {
                    Ok(kind)
                }
                _ => Err(Status::BadDeviceRange),
            },
            ControlKind::ContextCreate | ControlKind::ContextDestroy | ControlKind::JobCancel
                if second != 0 =>
            {
                Err(Status::ReservedNonZero)
            }
            ControlKind::AccessBits => {
                let blocks = memory_bytes.div_ceil(2 << 20);
                match first < blocks && second % 64 == 0 && (64..=1 << 15).contains(&second) {
                    true => Ok(kind),
                    false => Err(Status::BadDeviceRange),
                }
            }
            _ => Ok(kind),
        }
    }
}

/// A secret that the driver chooses when it opens a session, and presents to adopt the contents later. All zeros: the
/// contents cannot be adopted.
pub type SessionKey = [u8; 16];

/// The device-readable part of a chain that opens a session, where [`Features::SESSION_KEY`] was negotiated.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SessionRequest {
    /// Of kind [`ControlKind::SessionOpen`].
    pub request: ControlRequest,
    /// With `ADOPT` the key of the contents, else one for the new contents.
    pub key: SessionKey,
}

/// The device-writable part of a chain on the control queue.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ControlReply {
    /// A [`Status`].
    pub status: u8,
    /// Zero.
    pub reserved: [u8; 7],
    /// The request's cookie.
    pub cookie: U64,
    /// The generation.
    pub generation: U64,
    /// Zero.
    pub reserved2: U64,
}
