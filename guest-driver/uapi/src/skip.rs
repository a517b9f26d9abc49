// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Why a page did not move. The one list: ioctl reply, `hmmctl`, debugfs and trace events use it.

/// Slots of a reason array in the ioctl structures. Slots beyond [`SkipReason::ALL`] are zero.
pub const SKIP_REASONS: usize = 24;

/// Why a page did not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SkipReason {
    /// No mapping (VMA) at the address.
    Unmapped = 0,
    /// Nothing there: never touched, or the shared zero page. Moved only with
    /// `MigrateFlags::POPULATE`.
    Hole = 1,
    /// The mapping allows no read access (`PROT_NONE`).
    NoAccess = 2,
    /// An I/O, PFN, mixed, do-not-expand or DAX mapping.
    Special = 3,
    /// A hugetlb mapping.
    Hugetlb = 4,
    /// Page cache or shared memory: only private anonymous memory moves.
    File = 5,
    /// Locked by `mlock()`. Moved only with `MigrateFlags::MLOCKED`.
    Mlocked = 6,
    /// Merged by KSM, or in a mapping where it may merge.
    Ksm = 7,
    /// Already on the wanted side.
    Already = 8,
    /// On another device.
    OtherDevice = 9,
    /// Swapped out, or a marker (guard, poison, userfaultfd) in its place.
    Swapped = 10,
    /// Pinned for DMA or referenced elsewhere (`O_DIRECT`, io_uring, vmsplice, ...).
    Pinned = 11,
    /// Locked, isolated or being migrated by another task; a retry may succeed.
    Busy = 12,
    /// The kernel took it back after the copy (new reference, race, memory cgroup limit).
    LostRace = 13,
    /// No free device memory.
    NoDeviceMemory = 14,
    /// No free system memory.
    NoSystemMemory = 15,
    /// The device refused or failed the copy; the page stayed where it was, intact.
    CopyFailed = 16,
    /// The device memory is lost; the page cannot be migrated back.
    Lost = 17,
    /// The process has as much device memory as it may have.
    OverLimit = 18,
}

impl SkipReason {
    /// Every reason, in order of its slot.
    pub const ALL: [Self; 19] = [
        Self::Unmapped,
        Self::Hole,
        Self::NoAccess,
        Self::Special,
        Self::Hugetlb,
        Self::File,
        Self::Mlocked,
        Self::Ksm,
        Self::Already,
        Self::OtherDevice,
        Self::Swapped,
        Self::Pinned,
        Self::Busy,
        Self::LostRace,
        Self::NoDeviceMemory,
        Self::NoSystemMemory,
        Self::CopyFailed,
        Self::Lost,
        Self::OverLimit,
    ];

    /// The name used in JSON, tables, debugfs and trace events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unmapped => "unmapped",
            Self::Hole => "hole",
            Self::NoAccess => "no_access",
            Self::Special => "special",
            Self::Hugetlb => "hugetlb",
            Self::File => "file",
            Self::Mlocked => "mlocked",
            Self::Ksm => "ksm",
            Self::Already => "already",
            Self::OtherDevice => "other_device",
            Self::Swapped => "swapped",
            Self::Pinned => "pinned",
            Self::Busy => "busy",
            Self::LostRace => "lost_race",
            Self::NoDeviceMemory => "no_device_memory",
            Self::NoSystemMemory => "no_system_memory",
            Self::CopyFailed => "copy_failed",
            Self::Lost => "lost",
            Self::OverLimit => "over_limit",
        }
    }
}
