// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Structures of the ioctls by which a process says where its memory had better be.

use crate::SKIP_REASONS;
use core::mem::size_of;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`Advise`], `_IOWR`.
pub const ADVISE_NR: u8 = 4;
/// [`Prefetch`], `_IOWR`.
pub const PREFETCH_NR: u8 = 5;
/// [`Wait`], `_IOWR`.
pub const WAIT_NR: u8 = 6;
/// [`Evict`], `_IOWR`.
pub const EVICT_NR: u8 = 7;
/// [`Limit`], `_IOWR`.
pub const LIMIT_NR: u8 = 8;
/// Prefetches of one open file that have begun and were not waited for.
pub const PREFETCHES_MAX: usize = 64;
/// `Wait::timeout_ms`: wait for as long as it takes.
pub const WAIT_FOR_EVER: u32 = u32::MAX;
/// `Advise::touches`: a touch by the device never moves the memory.
pub const NEVER_TOUCHES: u32 = u32::MAX;
/// Size of [`Advise`] in version 2 of the interface, bytes.
pub const ADVISE_FIRST_BYTES: usize = 40;
/// `Limit::limit_bytes`: no limit.
pub const NO_LIMIT: u64 = u64::MAX;

/// Which fields of [`Advise`] count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdviseFlags(pub u32);

impl AdviseFlags {
    /// `side` counts.
    pub const SIDE: Self = Self(1 << 0);
    /// `keep` counts.
    pub const KEEP: Self = Self(1 << 1);
    /// `window_least` and `window_most` count.
    pub const WINDOW: Self = Self(1 << 2);
    /// `touches` counts.
    pub const TOUCHES: Self = Self(1 << 3);
    /// Every flag of this version.
    pub const ALL: Self = Self(Self::SIDE.0 | Self::KEEP.0 | Self::WINDOW.0 | Self::TOUCHES.0);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The side that memory had better be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum PreferredSide {
    /// Either.
    None = 0,
    /// The device's private memory.
    Device = 1,
    /// System memory.
    System = 2,
}

impl PreferredSide {
    /// The side of a field's value.
    pub const fn from_raw(value: u32) -> Option<Self> {
        match value {
            0 => Some(Self::None),
            1 => Some(Self::Device),
            2 => Some(Self::System),
            _ => None,
        }
    }
}

/// ADVISE: what had better be done with a range of a process's memory. It belongs to the address
/// space and lasts until it is changed, the range is unmapped, or the process ends; a child does
/// not inherit it.
///
/// Errors: `EINVAL` (flags, none of them, values, range unaligned, empty or wrapping), `ENOMEM`
/// (part of the range has no mapping, more to be kept than `RLIMIT_MEMLOCK` allows, or no memory),
/// `ENOSPC` (too many ranges), `ESRCH`, `EPERM`, `ENODEV`, `EFAULT` as MIGRATE.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Advise {
    /// [`AdviseFlags`]: the fields that count. What the others would say stays as it was.
    pub flags: u32,
    /// Process id in the caller's namespace; 0 is the caller.
    pub pid: i32,
    /// First byte, page aligned.
    pub start: u64,
    /// One past the last byte, page aligned.
    pub end: u64,
    /// [`PreferredSide`]: where a PREFETCH without a direction moves the memory.
    pub side: u32,
    /// 1: eviction spares the memory while it is on the device. 0: it does not. What it spares counts
    /// as pinned, which `RLIMIT_MEMLOCK` of the process limits unless the caller has `CAP_IPC_LOCK`.
    pub keep: u32,
    /// What a CPU fault takes along at least, bytes: a power of two from a page to 2 MiB; or 0,
    /// like `window_most`, for the driver's own choice.
    pub window_least: u32,
    /// What a CPU fault takes along at most, bytes: as `window_least`, and not less.
    pub window_most: u32,
    /// By which page fault of the device within a block of 2 MiB the memory of the block moves to the device; until
    /// then the device uses it where it is. [`NEVER_TOUCHES`]: by none. 0: by the first where `side` is the device,
    /// elsewhere by none.
    pub touches: u32,
    /// Zero.
    pub reserved: u32,
}

/// PREFETCH: begins to move a range of a process, and does not wait for it.
///
/// Errors: those of MIGRATE, and `EAGAIN`: [`PREFETCHES_MAX`] prefetches of this open
/// file were not waited for.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Prefetch {
    /// `MigrateFlags`; none on the way to system memory.
    pub flags: u32,
    /// `Direction`; 0 moves each part to its preferred side, and leaves parts without one alone.
    pub direction: u32,
    /// Process id in the caller's namespace; 0 is the caller.
    pub pid: i32,
    /// Zero.
    pub reserved: u32,
    /// First byte, page aligned.
    pub start: u64,
    /// One past the last byte, page aligned.
    pub end: u64,
    /// Written: what to wait for.
    pub id: u64,
}

/// Flags of [`Wait`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitFlags(pub u32);

impl WaitFlags {
    /// Ask the prefetch to stop before waiting for it.
    pub const CANCEL: Self = Self(1 << 0);
    /// Every flag of this version.
    pub const ALL: Self = Self::CANCEL;

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// State of a prefetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum PrefetchState {
    /// It has not come to its end. Nothing else is written.
    Running = 0,
    /// It went to the end of the range.
    Done = 1,
    /// It was asked to stop, and did so before the end of the range.
    Cancelled = 2,
    /// It came to nothing; `error` tells why. What was moved before stays moved.
    Failed = 3,
}

impl PrefetchState {
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

/// WAIT: waits for a prefetch of this open file. Once that it has ended is told, its id is gone.
///
/// Errors: `EINVAL` (flags), `ENOENT` (no such id), `EINTR` (a signal came; the id stays.
/// Without a limit of time the kernel begins the call again, unless the signal's handler forbids it).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Wait {
    /// [`WaitFlags`].
    pub flags: u32,
    /// Milliseconds to wait at most; 0 only asks, and [`WAIT_FOR_EVER`] waits to the end.
    pub timeout_ms: u32,
    /// The prefetch.
    pub id: u64,
    /// Written: [`PrefetchState`].
    pub state: u32,
    /// Written: an error number if it failed, or 0.
    pub error: u32,
    /// Written: where it stopped.
    pub next: u64,
    /// Written: pages moved.
    pub pages_moved: u64,
    /// Written: pages not moved, by `SkipReason`.
    pub pages_skipped: [u64; SKIP_REASONS],
}

/// EVICT: migrates memory back to system memory on request: a range of a process, or so many bytes
/// of device memory of any process. Only the latter spares memory that is advised to be kept.
///
/// Errors: those of MIGRATE; `EINVAL` also for both a range and bytes, or neither; `EPERM` for bytes
/// without `CAP_SYS_PTRACE`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Evict {
    /// Zero.
    pub flags: u32,
    /// Process id in the caller's namespace; 0 is the caller, and with `bytes` the only choice.
    pub pid: i32,
    /// First byte of the range, page aligned.
    pub start: u64,
    /// One past the last byte, page aligned.
    pub end: u64,
    /// Bytes of device memory, a multiple of the page size; `start` and `end` are zero then.
    /// Blocks are emptied but for what is to be kept, so it may be more.
    pub bytes: u64,
    /// Written: bytes that were migrated back.
    pub bytes_evicted: u64,
    /// Written: pages of the range that did not, by `SkipReason`.
    pub pages_skipped: [u64; SKIP_REASONS],
}

/// Flags of [`Limit`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitFlags(pub u32);

impl LimitFlags {
    /// Set the limit.
    pub const SET: Self = Self(1 << 0);
    /// Every flag of this version.
    pub const ALL: Self = Self::SET;

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// LIMIT: how much device memory a process may have, and how much it has. What it has beyond a new
/// limit stays; no more comes (`SkipReason::OverLimit`). The limit stays when the process executes
/// another program, and its children inherit it. A higher limit takes `CAP_SYS_RESOURCE`.
///
/// Errors: `EINVAL` (flags), `EPERM` also for a higher limit, `EOPNOTSUPP` (the kernel has no
/// tracepoints), `ESRCH`, `ENODEV`, `ENOMEM`, `EFAULT` as MIGRATE.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Limit {
    /// [`LimitFlags`].
    pub flags: u32,
    /// Process id in the caller's namespace; 0 is the caller.
    pub pid: i32,
    /// With SET the new limit, bytes; [`NO_LIMIT`] for none. Written: the limit, rounded down to
    /// pages.
    pub limit_bytes: u64,
    /// Written: device memory of pages that were moved for the process and are still there, bytes.
    pub resident_bytes: u64,
}

const _: () = {
    assert!(size_of::<Advise>() == ADVISE_FIRST_BYTES + 8);
    assert!(size_of::<Prefetch>() == 40);
    assert!(size_of::<Wait>() == 40 + 8 * SKIP_REASONS);
    assert!(size_of::<Evict>() == 40 + 8 * SKIP_REASONS);
    assert!(size_of::<Limit>() == 24);
};
