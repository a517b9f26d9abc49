// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Structures of the ioctls by which the device works on a process's memory, at the process's own addresses.

use core::mem::size_of;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`Job`], `_IOWR`.
pub const JOB_NR: u8 = 9;
/// [`JobWait`], `_IOWR`.
pub const JOB_WAIT_NR: u8 = 10;
/// Jobs of one open file that have begun and were not waited for.
pub const JOBS_MAX: usize = 256;
/// Arguments of a job.
pub const JOB_ARGUMENTS: usize = 12;

/// What a job does. Addresses are those of the process, in bytes. Arguments that a kind does not have are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum JobKind {
    /// Fills `arguments[1]` bytes from `arguments[0]` on: byte i gets byte i modulo 8 of `arguments[2]`.
    Fill = 1,
    /// Copies `arguments[2]` bytes from `arguments[1]` to `arguments[0]`; the ranges do not overlap.
    Copy = 2,
    /// The CRC-32C of `arguments[1]` bytes from `arguments[0]` on, continued from the CRC `arguments[2]`, is the result.
    Crc32c = 3,
    /// Adds `arguments[2]` atomically to each of `arguments[1]` words of `arguments[3]` bytes (4 or 8) from
    /// `arguments[0]` on. The result is the value of the first word before.
    AtomicAdd = 4,
    /// Follows a linked list from the node at `arguments[0]`: the pointer to the next node is `arguments[1]` bytes into a
    /// node, and 0 ends the list. The result is the sum of the 8 bytes that are `arguments[3]` bytes into each node. With
    /// [`JobFlags::WRITE`] the device adds `arguments[4]` to them. After `arguments[2]` nodes the job ends with
    /// [`JobStatus::Limit`].
    Walk = 5,
    /// Counts the pages of 4096 bytes in the `arguments[1]` bytes from `arguments[0]` on that the device has mapped with all
    /// the permissions of `arguments[2]` (1 read, 2 write, 4 atomic, 8 in device memory); that is the result. It
    /// touches no memory and never faults.
    Probe = 6,
    /// Runs RV64IMAC code at `arguments[0]` on `arguments[3]` harts. Hart h has `arguments[2]` bytes of stack that end h times
    /// that much below `arguments[1]`. A hart ends when its function returns, or by an ECALL with 93 in `a7`; its value
    /// is in `a0`. `arguments[4]` bounds the instructions of each hart, `arguments[5]` the milliseconds of the job; 0 is
    /// the device's limit. `a0` to `a4` begin as `arguments[6]` to `arguments[10]`, `gp` as `arguments[11]`, `a5` and `tp` as the
    /// number of the hart. The result is that of hart 0.
    Program = 7,
}

impl JobKind {
    /// Every kind, in order of its number.
    pub const ALL: [Self; 7] = [
        Self::Fill,
        Self::Copy,
        Self::Crc32c,
        Self::AtomicAdd,
        Self::Walk,
        Self::Probe,
        Self::Program,
    ];

    /// The kind of a field's value.
    pub fn from_raw(value: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == value)
    }

    /// The name used in JSON, tables and trace events.
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
}

/// Flags of [`Job`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobFlags(pub u32);

impl JobFlags {
    /// End at the first page that the device has not mapped, with [`JobStatus::Unmapped`] or [`JobStatus::Forbidden`],
    /// instead of faulting it in.
    pub const NO_FAULT: Self = Self(1 << 0);
    /// [`JobKind::Walk`] only: write the nodes.
    pub const WRITE: Self = Self(1 << 1);
    /// `eventfd` counts: the driver adds 1 to that eventfd when the job has ended.
    pub const EVENTFD: Self = Self(1 << 2);
    /// Every flag of this version.
    pub const ALL: Self = Self(Self::NO_FAULT.0 | Self::WRITE.0 | Self::EVENTFD.0);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// JOB: has the device work on the memory of a process, and does not wait for it. A job that was begun ends by itself, by a
/// JOB_WAIT with CANCEL, when the memory of the process goes, or when the node by which it was begun is closed.
///
/// Errors: `EINVAL` (flags, kind, arguments, an address that a process cannot have), `EBADF` (`eventfd` is no
/// eventfd), `EAGAIN` ([`JOBS_MAX`] jobs of this open file were not waited for, or the device has no room for more),
/// `EOPNOTSUPP` (the device does no jobs, or none of this kind), `ESRCH`, `EPERM`, `ENOMEM`, `ENODEV`, `EFAULT` as MIGRATE.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Job {
    /// [`JobFlags`].
    pub flags: u32,
    /// [`JobKind`].
    pub kind: u32,
    /// Process id in the caller's namespace; 0 is the caller.
    pub pid: i32,
    /// With [`JobFlags::EVENTFD`] a descriptor of an eventfd, else zero.
    pub eventfd: i32,
    /// As the kind says.
    pub arguments: [u64; JOB_ARGUMENTS],
    /// Written: what to wait for.
    pub id: u64,
}

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum JobState {
    /// It has not ended. Nothing else is written.
    Running = 0,
    /// It did all it had to do.
    Done = 1,
    /// It was asked to stop, and did so before its end.
    Cancelled = 2,
    /// It ended with an error; `error` and `status` tell which.
    Failed = 3,
}

impl JobState {
    /// The state of a field's value.
    pub const fn from_raw(value: u32) -> Option<Self> {
        match value {
            0 => Some(Self::Running),
            1 => Some(Self::Done),
            2 => Some(Self::Cancelled),
            3 => Some(Self::Failed),
            _ => None,
        }
    }
}

/// How a job ended, as the device said it. The numbers are those of `docs/wire-format.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum JobStatus {
    /// Done.
    Ok = 0x01,
    /// The address is beyond those that a process can have.
    BadAddress = 0x18,
    /// It read memory whose contents are lost.
    Poison = 0x20,
    /// Nothing is mapped at the address.
    Unmapped = 0x24,
    /// The access is not permitted at the address.
    Forbidden = 0x25,
    /// The driver had no memory for the address.
    NoMemory = 0x26,
    /// The driver did not answer a page fault in time.
    FaultTimeout = 0x27,
    /// The same page fault came again after each answer.
    Stalled = 0x28,
    /// The program came to an instruction that a hart does not have.
    IllegalInstruction = 0x29,
    /// The address is not aligned as the access needs.
    Misaligned = 0x2a,
    /// The program came to an EBREAK, or to an ECALL that is none.
    Breakpoint = 0x2b,
    /// The limit of instructions, nodes or time was reached.
    Limit = 0x2c,
    /// It was cancelled.
    Cancelled = 0x30,
    /// The device failed in itself.
    Internal = 0x3f,
}

impl JobStatus {
    /// Every status, in order of its number.
    pub const ALL: [Self; 14] = [
        Self::Ok,
        Self::BadAddress,
        Self::Poison,
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

    /// The status of a field's value.
    pub fn from_raw(value: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u32 == value)
    }

    /// The name used in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::BadAddress => "bad-address",
            Self::Poison => "poison",
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

    /// The error number that says the same, as Linux has it; 0 for [`Self::Ok`].
    pub const fn errno(self) -> u32 {
        match self {
            Self::Ok => 0,
            // EIO
            Self::Poison | Self::Internal => 5,
            // EFAULT
            Self::BadAddress | Self::Unmapped | Self::Forbidden | Self::Misaligned => 14,
            // ENOMEM
            Self::NoMemory => 12,
            // ETIMEDOUT
            Self::FaultTimeout | Self::Stalled => 110,
            // ENOEXEC
            Self::IllegalInstruction | Self::Breakpoint => 8,
            // ELOOP
            Self::Limit => 40,
            // ECANCELED
            Self::Cancelled => 125,
        }
    }
}

/// Flags of [`JobWait`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobWaitFlags(pub u32);

impl JobWaitFlags {
    /// Ask the job to stop before waiting for it.
    pub const CANCEL: Self = Self(1 << 0);
    /// Every flag of this version.
    pub const ALL: Self = Self::CANCEL;

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// JOB_WAIT: waits for a job. Once the end of a job was told, its id is gone.
///
/// Errors: `EINVAL` (flags), `ENOENT` (no such id), `EINTR` (a signal came; the id stays. Without a limit of time the
/// kernel begins the call again, unless the signal's handler forbids it).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct JobWait {
    /// [`JobWaitFlags`].
    pub flags: u32,
    /// Milliseconds to wait at most; 0 only asks, and `WAIT_FOR_EVER` waits to the end.
    pub timeout_ms: u32,
    /// The job.
    pub id: u64,
    /// Written: [`JobState`].
    pub state: u32,
    /// Written: an error number if it did not end well, or 0.
    pub error: u32,
    /// Written: [`JobStatus`], or 0 if the device told nothing.
    pub status: u32,
    /// Zero.
    pub reserved: u32,
    /// Written: the result, as [`JobKind`] says.
    pub result: u64,
    /// Written: the first address that could not be accessed, or 0.
    pub address: u64,
    /// Written: for a program that did not end well, where the hart was that ended it; else 0.
    pub program_counter: u64,
    /// Written: what was done: bytes, words, nodes, pages or instructions.
    pub amount: u64,
    /// Written: time from acceptance to the end, measured by the device, nanoseconds.
    pub device_ns: u64,
    /// Written: page faults of the job.
    pub faults: u64,
}

const _: () = {
    assert!(size_of::<Job>() == 24 + 8 * JOB_ARGUMENTS);
    assert!(size_of::<JobWait>() == 80);
};
