// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The job queues: what the device does at the virtual addresses of a context.

use crate::{Features, JobLimits, MapFlags, Status, VIRTUAL_ADDRESS_END};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of [`Job`], bytes.
pub const JOB_BYTES: usize = 128;
/// A hart that returns to this address has ended: it is in the register `ra` when the hart starts.
pub const PROGRAM_RETURN: u64 = 0xffff_ffff_ffff_f000;
/// Most milliseconds that a program may ask for.
pub const MAX_PROGRAM_MS: u64 = 3_600_000;

/// What a job does. The device-readable part of a chain on a job queue is one [`Job`]; the device answers with a
/// [`crate::Completion`] as soon as it has accepted or refused the job, and reports the end of an accepted job by a
/// [`crate::Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum JobKind {
    /// Fills `arguments[1]` bytes from `arguments[0]` on: byte i gets byte i modulo 8 of `arguments[2]`.
    Fill = 1,
    /// Copies `arguments[2]` bytes from `arguments[1]` to `arguments[0]`; the ranges do not overlap.
    Copy = 2,
    /// The CRC-32C of `arguments[1]` bytes from `arguments[0]` on, continued from the CRC `arguments[2]`, is the result.
    Crc32c = 3,
    /// Adds `arguments[2]` atomically to each of `arguments[1]` words of `arguments[3]` bytes (4 or 8) from `arguments[0]` on.
    /// The result is the value of the first word before.
    AtomicAdd = 4,
    /// Follows a linked list from the node at `arguments[0]`: the pointer to the next node is `arguments[1]` bytes into a node, and
    /// 0 ends the list. The result is the sum of the 8 bytes that are `arguments[3]` bytes into each node. With
    /// [`JobFlags::WRITE`] the device adds `arguments[4]` to them. After `arguments[2]` nodes the job ends with `Limit`.
    Walk = 5,
    /// Counts the pages of 4096 bytes in the `arguments[1]` bytes from `arguments[0]` on that are mapped with all the
    /// permissions of `arguments[2]` ([`MapFlags`], and with `DEVICE` only those in device memory); that is the result. It touches no memory
    /// and never faults.
    Probe = 6,
    /// Runs RV64IMAC code at `arguments[0]` on `arguments[3]` harts. Each hart has `arguments[2]` bytes of stack: that of hart h
    /// ends h times that much below `arguments[1]`, and `sp` is there. The hart ends with the value in `a0` when it
    /// returns to [`PROGRAM_RETURN`] (`ra`), or by an ECALL with 93 in `a7`. `arguments[4]` bounds the instructions of
    /// each hart, `arguments[5]` the milliseconds of the job; 0 is the device's limit. Registers `a0` to `a4` begin as
    /// `arguments[6]` to `arguments[10]`, `gp` as `arguments[11]`, `a5` and `tp` as the number of the hart, all others as 0. The
    /// result is that of hart 0. Needs [`Features::PROGRAMS`].
    Program = 7,
}

impl JobKind {
    /// All kinds, in order of their value.
    pub const ALL: [Self; 7] = [
        Self::Fill,
        Self::Copy,
        Self::Crc32c,
        Self::AtomicAdd,
        Self::Walk,
        Self::Probe,
        Self::Program,
    ];

    /// The kind of a wire byte.
    pub fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The name used in logs, statistics and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Copy => "copy",
            Self::Crc32c => "crc32c",
            Self::AtomicAdd => "atomic-add",
            Self::Walk => "walk",
            Self::Probe => "probe",
            Self::Program => "program",
        }
    }

    /// How many arguments it has; the others are zero.
    const fn arguments(self) -> usize {
        match self {
            Self::Fill | Self::Copy | Self::Crc32c | Self::Probe => 3,
            Self::AtomicAdd => 4,
            Self::Walk => 5,
            Self::Program => 12,
        }
    }
}

/// Flags of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobFlags(pub u8);

impl JobFlags {
    /// Report no page fault: end with `Unmapped` or `Forbidden` at the first one.
    pub const NO_FAULT: Self = Self(1 << 0);
    /// `Walk` only: write the nodes.
    pub const WRITE: Self = Self(1 << 1);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A job.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Job {
    /// A [`JobKind`].
    pub kind: u8,
    /// [`JobFlags`].
    pub flags: u8,
    /// Zero.
    pub reserved: U16,
    /// Number of the context.
    pub context: U32,
    /// Names the job; no two jobs that have not ended have the same.
    pub cookie: U64,
    /// The session's generation; another one is `StaleGeneration`.
    pub generation: U64,
    /// As the kind says; addresses are virtual ones of the context, in bytes.
    pub arguments: [U64; 12],
    /// Zero.
    pub reserved2: U64,
}

impl Job {
    /// A job; missing arguments are zero, and those beyond the twelfth are dropped.
    pub fn new(
        kind: JobKind,
        flags: JobFlags,
        context: u32,
        cookie: u64,
        generation: u64,
        arguments: &[u64],
    ) -> Self {
        let mut words = [U64::new(0); 12];
        for (word, argument) in words.iter_mut().zip(arguments) {
            *word = U64::new(*argument);
        }
        Self {
            kind: kind as u8,
            flags: flags.0,
            reserved: U16::new(0),
            context: U32::new(context),
            cookie: U64::new(cookie),
            generation: U64::new(generation),
            arguments: words,
            reserved2: U64::new(0),
        }
    }

    /// Argument `index`, 0 beyond the last.
    pub fn argument(&self, index: usize) -> u64 {
        self.arguments.get(index).map_or(0, |word| word.get())
    }

    /// Checks every field but generation, cookie and context, for a driver that negotiated `features`.
    ///
    /// # Errors
    /// The [`Status`] with which the job is refused.
    pub fn validate(&self, limits: &JobLimits, features: Features) -> Result<JobKind, Status> {
        let kind = JobKind::from_wire(self.kind).ok_or(Status::BadOp)?;
        let programs = kind == JobKind::Program;
        if !features.contains(Features::CONTEXTS)
            || (programs && !features.contains(Features::PROGRAMS))
        {
            return Err(Status::BadOp);
        }
        let allowed = match kind {
            JobKind::Walk => JobFlags::NO_FAULT.0 | JobFlags::WRITE.0,
            JobKind::Probe => 0,
            _ => JobFlags::NO_FAULT.0,
        };
        if self.flags & !allowed != 0 {
            return Err(Status::BadFlags);
        }
        let unused = self.arguments.iter().skip(kind.arguments());
        if self.reserved.get() != 0
            || self.reserved2.get() != 0
            || unused.into_iter().any(|word| word.get() != 0)
        {
            return Err(Status::ReservedNonZero);
        }
        let argument = |index| self.argument(index);
        match kind {
            JobKind::Fill => check_range(argument(0), argument(1))?,
            JobKind::Crc32c => {
                check_range(argument(0), argument(1))?;
                if argument(2) > u64::from(u32::MAX) {
                    return Err(Status::ReservedNonZero);
                }
            }
            JobKind::Copy => {
                check_range(argument(0), argument(2))?;
                check_range(argument(1), argument(2))?;
                if argument(0).abs_diff(argument(1)) < argument(2) {
                    return Err(Status::Overlap);
                }
            }
            JobKind::AtomicAdd => {
                let width = argument(3);
                if width != 4 && width != 8 {
                    return Err(Status::BadLength);
                }
                let bytes = argument(1).checked_mul(width).ok_or(Status::BadAddress)?;
                check_range(argument(0), bytes)?;
                if argument(0) % width != 0 {
                    return Err(Status::Misaligned);
                }
            }
            JobKind::Walk => {
                if argument(2) == 0 {
                    return Err(Status::BadCount);
                }
                let offset = argument(1).max(argument(3));
                if offset >= 1 << 32 {
                    return Err(Status::BadLength);
                }
            }
            JobKind::Probe => {
                check_range(argument(0), argument(1))?;
                if argument(0) % 4096 != 0 || argument(1) % 4096 != 0 {
                    return Err(Status::BadAddress);
                }
                if argument(2) & !u64::from(MapFlags::ALL.0) != 0 {
                    return Err(Status::BadFlags);
                }
            }
            JobKind::Program => {
                let (top, bytes, harts) = (argument(1), argument(2), argument(3));
                if harts == 0 || harts > u64::from(limits.max_harts) {
                    return Err(Status::BadCount);
                }
                if argument(0) % 2 != 0 || top % 16 != 0 || bytes % 16 != 0 {
                    return Err(Status::Misaligned);
                }
                let stacks = bytes.checked_mul(harts).ok_or(Status::BadAddress)?;
                let bottom = top.checked_sub(stacks).ok_or(Status::BadAddress)?;
                check_range(bottom, stacks.max(1))?;
                check_range(argument(0), 2)?;
                if argument(5) > MAX_PROGRAM_MS {
                    return Err(Status::Limit);
                }
            }
        }
        Ok(kind)
    }
}

/// A virtual range must not be empty and must end within the addresses of a context.
fn check_range(start: u64, len: u64) -> Result<(), Status> {
    match start.checked_add(len) {
        Some(end) if len != 0 && end <= VIRTUAL_ADDRESS_END => Ok(()),
        _ => Err(Status::BadAddress),
    }
}
