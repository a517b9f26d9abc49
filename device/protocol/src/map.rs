// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The MMU queue: batches that change the page tables of a context, and answer page faults.

use crate::{BatchFlags, Features, Limits, Status};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of [`MapHeader`], bytes.
pub const MAP_HEADER_BYTES: usize = 32;
/// Size of [`MapEntry`], bytes.
pub const MAP_ENTRY_BYTES: usize = 32;
/// The kind byte of a [`MapHeader`].
pub const MAP_KIND: u8 = 3;
/// A context has the virtual addresses from 0 to this one, exclusive, bytes. Half of them are those of a process; the driver
/// may use the others for itself.
pub const VIRTUAL_ADDRESS_END: u64 = 1 << 57;
/// Most bytes that one `MapOp::Map` maps.
pub const MAX_MAP_BYTES: u64 = 1 << 30;

/// The first 32 bytes of the device-readable part of a chain on the MMU queue. `entry_count` entries of [`MapEntry`] follow. The
/// entries are executed in order, and the first that fails ends the batch; the rest is `NotAttempted`. What the device
/// writes is a [`crate::Completion`], and with `STATUS_ARRAY` the status array.
///
/// When a batch is complete, no access under a translation or a permission that it took away can still happen. What it
/// gave is there for every access that begins later.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MapHeader {
    /// [`MAP_KIND`].
    pub kind: u8,
    /// [`BatchFlags::STATUS_ARRAY`] or nothing.
    pub flags: u8,
    /// Bytes of one entry: 32.
    pub entry_bytes: U16,
    /// Entries, 1 to `max_map_entries`.
    pub entry_count: U32,
    /// Echoed in the completion record.
    pub cookie: U64,
    /// The session's generation; another one is `StaleGeneration`.
    pub generation: U64,
    /// Number of the context.
    pub context: U32,
    /// Zero.
    pub reserved: U32,
}

impl MapHeader {
    /// A header for `entry_count` entries.
    pub fn new(
        flags: BatchFlags,
        entry_count: u32,
        cookie: u64,
        generation: u64,
        context: u32,
    ) -> Self {
        Self {
            kind: MAP_KIND,
            flags: flags.0,
            entry_bytes: U16::new(MAP_ENTRY_BYTES as u16),
            entry_count: U32::new(entry_count),
            cookie: U64::new(cookie),
            generation: U64::new(generation),
            context: U32::new(context),
            reserved: U32::new(0),
        }
    }

    /// Checks every field but generation and context, for a driver that negotiated `features`; `max_entries` is that of
    /// the device.
    ///
    /// # Errors
    /// `BadOp`, `BadFlags`, `ReservedNonZero`, `BadLength` (entry size) or `BadCount`.
    pub fn validate(&self, max_entries: u32, features: Features) -> Result<(), Status> {
        if self.kind != MAP_KIND || !features.contains(Features::CONTEXTS) {
            return Err(Status::BadOp);
        }
        let allowed = match features.contains(Features::STATUS_ARRAY) {
            true => BatchFlags::STATUS_ARRAY.0,
            false => 0,
        };
        if self.flags & !allowed != 0 {
            return Err(Status::BadFlags);
        }
        if self.reserved.get() != 0 {
            return Err(Status::ReservedNonZero);
        }
        if usize::from(self.entry_bytes.get()) != MAP_ENTRY_BYTES {
            return Err(Status::BadLength);
        }
        if self.entry_count.get() == 0 || self.entry_count.get() > max_entries {
            return Err(Status::BadCount);
        }
        Ok(())
    }
}

/// The operation of a [`MapEntry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MapOp {
    /// Maps [`address`, `address` + `len`) to [`target`, `target` + `len`), in pages of `1 << page_shift` bytes, with the
    /// permissions of `flags`. It replaces what is mapped there.
    Map = 1,
    /// Removes what is mapped in [`address`, `address` + `len`). A 2 MiB page that the range covers in part becomes 4 KiB
    /// pages first.
    Unmap = 2,
    /// Takes away the permissions that `flags` lacks in [`address`, `address` + `len`). Without `READ` nothing is left.
    Protect = 3,
    /// The job of page fault `address` (its number) tries its access again.
    Resume = 4,
    /// The job of page fault `address` (its number) ends with the status `target`: `Unmapped`, `Forbidden`, `Poison` or
    /// `NoMemory`.
    Fail = 5,
}

impl MapOp {
    /// The operation of a wire byte.
    pub const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Map),
            2 => Some(Self::Unmap),
            3 => Some(Self::Protect),
            4 => Some(Self::Resume),
            5 => Some(Self::Fail),
            _ => None,
        }
    }

    /// The name used in logs and statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Unmap => "unmap",
            Self::Protect => "protect",
            Self::Resume => "resume",
            Self::Fail => "fail",
        }
    }
}

/// Permissions of a mapping, and what it maps to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapFlags(pub u8);

impl MapFlags {
    /// Jobs may read, and harts may fetch instructions.
    pub const READ: Self = Self(1 << 0);
    /// Jobs may write; only with `READ`.
    pub const WRITE: Self = Self(1 << 1);
    /// Jobs may read and write atomically; only with `WRITE`.
    pub const ATOMIC: Self = Self(1 << 2);
    /// The target is an offset in device memory; without it, a guest DMA address.
    pub const DEVICE: Self = Self(1 << 3);
    /// All permissions.
    pub const PERMISSIONS: Self = Self(Self::READ.0 | Self::WRITE.0 | Self::ATOMIC.0);
    /// Every flag of this version.
    pub const ALL: Self = Self(Self::PERMISSIONS.0 | Self::DEVICE.0);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits that are set in both.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the permissions are one of: none, `READ`, `READ | WRITE`, all three.
    pub const fn is_ordered(self) -> bool {
        matches!(self.0 & Self::PERMISSIONS.0, 0 | 1 | 3 | 7)
    }
}

/// One change of the page tables, or one answer to a page fault.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MapEntry {
    /// A [`MapOp`].
    pub op: u8,
    /// [`MapFlags`]; zero for `Unmap`, `Resume` and `Fail`.
    pub flags: u8,
    /// `Map`: 12 or 21, log2 of the page size in bytes. Else zero.
    pub page_shift: u8,
    /// Zero.
    pub reserved: u8,
    /// Zero.
    pub reserved2: U32,
    /// `Map`, `Unmap`, `Protect`: virtual address, bytes, a multiple of the page size (of 4096). `Resume`, `Fail`: number of
    /// the page fault.
    pub address: U64,
    /// `Map`, `Unmap`, `Protect`: bytes, a multiple of the page size (of 4096), not 0. Else zero.
    pub len: U64,
    /// `Map`: guest DMA address or offset in device memory, bytes, a multiple of the page size. `Fail`: a [`Status`]. Else
    /// zero.
    pub target: U64,
}

impl MapEntry {
    /// An entry that maps `len` bytes.
    pub fn map(address: u64, len: u64, target: u64, flags: MapFlags, page_shift: u8) -> Self {
        Self {
            flags: flags.0,
            page_shift,
            target: U64::new(target),
            ..Self::bare(MapOp::Map, address, len)
        }
    }

    /// An entry that unmaps `len` bytes.
    pub fn unmap(address: u64, len: u64) -> Self {
        Self::bare(MapOp::Unmap, address, len)
    }

    /// An entry that takes away all permissions but `flags`.
    pub fn protect(address: u64, len: u64, flags: MapFlags) -> Self {
        Self {
            flags: flags.0,
            ..Self::bare(MapOp::Protect, address, len)
        }
    }

    /// An entry that makes the job of a page fault try again.
    pub fn resume(fault: u64) -> Self {
        Self::bare(MapOp::Resume, fault, 0)
    }

    /// An entry that ends the job of a page fault.
    pub fn fail(fault: u64, status: Status) -> Self {
        Self {
            target: U64::new(u64::from(status.to_wire())),
            ..Self::bare(MapOp::Fail, fault, 0)
        }
    }

    fn bare(op: MapOp, address: u64, len: u64) -> Self {
        Self {
            op: op as u8,
            flags: 0,
            page_shift: 0,
            reserved: 0,
            reserved2: U32::new(0),
            address: U64::new(address),
            len: U64::new(len),
            target: U64::new(0),
        }
    }

    /// Checks all that can be checked without the guest's memory table and the context.
    ///
    /// # Errors
    /// The [`Status`] that the entry gets.
    pub fn validate(&self, limits: &Limits) -> Result<MapOp, Status> {
        let op = MapOp::from_wire(self.op).ok_or(Status::BadOp)?;
        let allowed = match op {
            MapOp::Map => MapFlags::ALL.0,
            MapOp::Protect => MapFlags::PERMISSIONS.0,
            MapOp::Unmap | MapOp::Resume | MapOp::Fail => 0,
        };
        let flags = MapFlags(self.flags);
        if self.flags & !allowed != 0
            || !flags.is_ordered()
            || (op == MapOp::Map && !flags.contains(MapFlags::READ))
        {
            return Err(Status::BadFlags);
        }
        if self.reserved != 0 || self.reserved2.get() != 0 {
            return Err(Status::ReservedNonZero);
        }
        let (len, target) = (self.len.get(), self.target.get());
        match op {
            MapOp::Resume | MapOp::Fail => {
                if self.page_shift != 0 || len != 0 {
                    return Err(Status::ReservedNonZero);
                }
                match op {
                    MapOp::Fail => self.failure().map(|_| op),
                    _ if target != 0 => Err(Status::ReservedNonZero),
                    _ => Ok(op),
                }
            }
            MapOp::Unmap | MapOp::Protect => {
                if self.page_shift != 0 || target != 0 {
                    return Err(Status::ReservedNonZero);
                }
                check_virtual_range(self.address.get(), len, 4096).map(|()| op)
            }
            MapOp::Map => {
                if self.page_shift != 12 && self.page_shift != 21 {
                    return Err(Status::BadLength);
                }
                let page = 1 << self.page_shift;
                check_virtual_range(self.address.get(), len, page)?;
                if len > MAX_MAP_BYTES {
                    return Err(Status::BadLength);
                }
                let end = target.checked_add(len).filter(|_| target % page == 0);
                match (flags.contains(MapFlags::DEVICE), end) {
                    (true, Some(end)) if end <= limits.memory_bytes => Ok(op),
                    (true, _) => Err(Status::BadDeviceRange),
                    (false, Some(_)) => Ok(op),
                    (false, None) => Err(Status::BadGuestAddress),
                }
            }
        }
    }

    /// The status with which [`MapOp::Fail`] ends a job.
    ///
    /// # Errors
    /// `BadOp`: a job cannot be ended with it.
    pub fn failure(&self) -> Result<Status, Status> {
        let status = u8::try_from(self.target.get()).ok();
        status
            .and_then(Status::from_wire)
            .filter(|status| {
                matches!(
                    status,
                    Status::Unmapped | Status::Forbidden | Status::Poison | Status::NoMemory
                )
            })
            .ok_or(Status::BadOp)
    }
}

/// A virtual range must be aligned, must not be empty and must end within the addresses of a context.
fn check_virtual_range(start: u64, len: u64, page: u64) -> Result<(), Status> {
    match start.checked_add(len) {
        Some(end)
            if len != 0 && end <= VIRTUAL_ADDRESS_END && start % page == 0 && len % page == 0 =>
        {
            Ok(())
        }
        _ => Err(Status::BadAddress),
    }
}
