// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Structures and numbers. Native endianness; every field is naturally aligned.

use crate::SKIP_REASONS;
use core::mem::size_of;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The ioctl type byte.
pub const IOCTL_TYPE: u8 = 0xbd;
/// [`Info`], `_IOWR`.
pub const INFO_NR: u8 = 0;
/// [`Migrate`], `_IOWR`.
pub const MIGRATE_NR: u8 = 1;
/// [`Residency`], `_IOWR`.
pub const RESIDENCY_NR: u8 = 2;
/// [`Stats`], `_IOWR`.
pub const STATS_NR: u8 = 3;
/// `Info::version` of this crate.
pub const UAPI_VERSION: u32 = 3;
/// Most pages of one RESIDENCY call (1 GiB of 4 KiB pages).
pub const RESIDENCY_PAGES_MAX: u64 = 1 << 18;

/// INFO: what the device is. Everything is written by the driver except `flags`.
///
/// Errors: `EINVAL` flags or size, `ENODEV` device gone.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Info {
    /// Zero.
    pub flags: u32,
    /// [`UAPI_VERSION`] of the driver.
    pub version: u32,
    /// Negotiated device feature bits (`hmm_protocol::Features`).
    pub features: u64,
    /// Device memory, bytes.
    pub memory_bytes: u64,
    /// Device memory with pages of processes on it, bytes.
    pub resident_bytes: u64,
    /// Page size, bytes.
    pub page_bytes: u32,
    /// Allocation block of device memory, bytes.
    pub block_bytes: u32,
    /// Most pages of a batch.
    pub max_batch_pages: u32,
    /// Bulk queues in use.
    pub bulk_queues: u32,
    /// Generation of the contents of device memory.
    pub generation: u64,
    /// Identity of device memory.
    pub uuid: [u8; 16],
}

/// Where memory is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Direction {
    /// To the device's private memory.
    ToDevice = 1,
    /// To system memory.
    ToSystem = 2,
}

impl Direction {
    /// The direction of a field's value.
    pub const fn from_raw(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::ToDevice),
            2 => Some(Self::ToSystem),
            _ => None,
        }
    }

    /// The name used in trace events and debugfs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToDevice => "to_device",
            Self::ToSystem => "to_system",
        }
    }
}

/// Flags of [`Migrate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MigrateFlags(pub u32);

impl MigrateFlags {
    /// To the device: also give device pages to holes of anonymous mappings.
    pub const POPULATE: Self = Self(1 << 0);
    /// To the device: also move memory locked by `mlock()`.
    pub const MLOCKED: Self = Self(1 << 1);
    /// Every flag of this version.
    pub const ALL: Self = Self(Self::POPULATE.0 | Self::MLOCKED.0);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// MIGRATE: moves what can move of a range of a process, and counts the rest by reason.
///
/// The call succeeds even if no page moved. A signal, or a system that goes to sleep, ends it early
/// with `EINTR`; the structure is written in that case too, and `next` tells where to go on. A call
/// that a signal ends before it has begun anything is begun again by the kernel, unless the
/// signal's handler forbids it.
///
/// Errors: `EINVAL` (flags, direction, size, range unaligned, empty or wrapping), `ESRCH` (no such
/// process, or it has no memory), `EPERM` (another process that the caller may not debug), `EINTR`,
/// `ENODEV` (device gone), `ENOMEM`, `EFAULT`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Migrate {
    /// [`MigrateFlags`].
    pub flags: u32,
    /// [`Direction`].
    pub direction: u32,
    /// Process id in the caller's namespace; 0 is the caller.
    pub pid: i32,
    /// Zero.
    pub reserved: u32,
    /// First byte, page aligned.
    pub start: u64,
    /// One past the last byte, page aligned.
    pub end: u64,
    /// Written: where the call stopped; `end` if it went to the end.
    pub next: u64,
    /// Written: pages moved.
    pub pages_moved: u64,
    /// Written: pages not moved, by `SkipReason`. All pages of the range up to `next` are either
    /// moved or counted here once.
    pub pages_skipped: [u64; SKIP_REASONS],
    /// Written: batches submitted for the pages of this call.
    pub batches: u64,
    /// Written: doorbells rung for them.
    pub doorbells: u64,
}

/// One byte a page in the map of [`Residency`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageState {
    /// Nothing that this device can see: no mapping, hole, swap, or on another device.
    None = 0,
    /// In system memory.
    System = 1,
    /// On this device.
    Device = 2,
}

/// RESIDENCY: where the pages of a range are, at the moment of asking.
///
/// Errors: as MIGRATE; also `E2BIG` for more than [`RESIDENCY_PAGES_MAX`] pages.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Residency {
    /// Zero.
    pub flags: u32,
    /// Process id in the caller's namespace; 0 is the caller.
    pub pid: i32,
    /// First byte, page aligned.
    pub start: u64,
    /// One past the last byte, page aligned.
    pub end: u64,
    /// Address of an array of one byte ([`PageState`]) for each page, or 0 for counts only.
    pub map: u64,
    /// Written: pages in system memory.
    pub system_pages: u64,
    /// Written: pages on this device.
    pub device_pages: u64,
    /// Written: all other pages.
    pub other_pages: u64,
}

/// STATS: counters since the driver was bound to the device. They only grow, except
/// `resident_bytes`.
///
/// Errors: `EINVAL` flags or size, `ENODEV`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Stats {
    /// Zero.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Bytes moved to the device (pages committed).
    pub bytes_to_device: u64,
    /// Bytes moved to system memory (pages committed), for whatever reason.
    pub bytes_to_system: u64,
    /// Of `bytes_to_system`: moved by CPU faults.
    pub bytes_by_fault: u64,
    /// Of `bytes_to_system`: moved by eviction (device memory wanted, unbind).
    pub bytes_by_eviction: u64,
    /// Device memory in use by pages, bytes, now.
    pub resident_bytes: u64,
    /// The highest `resident_bytes` so far, bytes.
    pub peak_resident_bytes: u64,
    /// CPU faults served.
    pub cpu_faults: u64,
    /// CPU faults that ended in SIGBUS.
    pub cpu_faults_failed: u64,
    /// Batches submitted.
    pub batches: u64,
    /// Doorbells rung.
    pub doorbells: u64,
    /// Entries (extents or pages) that the device refused or failed.
    pub copy_errors: u64,
    /// Batches that were not answered in time.
    pub timeouts: u64,
    /// Answers of the device that made no sense (length, status, cookie).
    pub protocol_errors: u64,
    /// Pages not moved, by `SkipReason`.
    pub pages_skipped: [u64; SKIP_REASONS],
}

const _: () = {
    assert!(size_of::<Info>() == 72);
    assert!(size_of::<Migrate>() == 40 + 8 + 8 * SKIP_REASONS + 16);
    assert!(size_of::<Residency>() == 56);
    assert!(size_of::<Stats>() == 8 + 13 * 8 + 8 * SKIP_REASONS);
};
