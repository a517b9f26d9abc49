// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Batches: a header, then entries or a page list.

use crate::{Features, Limits, Status};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of [`BatchHeader`], bytes.
pub const HEADER_BYTES: usize = 32;
/// Size of [`CopyEntry`], bytes.
pub const ENTRY_BYTES: usize = 32;
/// Size of [`PageList`], bytes.
pub const PAGE_LIST_BYTES: usize = 32;

/// In a page list: fill this page of the device extent with zeros (`Op::ToDevice` only).
pub const PAGE_ADDRESS_ZERO: u64 = u64::MAX;
/// In a page list: leave this page of the device extent alone. Its status is `Ok`.
pub const PAGE_ADDRESS_SKIP: u64 = u64::MAX - 1;

/// What follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BatchKind {
    /// `entry_count` entries of [`CopyEntry`].
    Entries = 1,
    /// One [`PageList`], then `entry_count` guest addresses of 8 bytes.
    PageList = 2,
}

/// Flags of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchFlags(pub u8);

impl BatchFlags {
    /// Execute in order and stop at the first entry that fails; the rest is `NotAttempted`.
    pub const ORDERED: Self = Self(1 << 0);
    /// Start only when all earlier batches of all queues are complete.
    pub const FENCE: Self = Self(1 << 1);
    /// A status byte for each entry follows the completion record.
    pub const STATUS_ARRAY: Self = Self(1 << 2);
    /// Every flag of this version.
    pub const ALL: Self = Self(Self::ORDERED.0 | Self::FENCE.0 | Self::STATUS_ARRAY.0);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The first 32 bytes of the device-readable part of a chain on a batch queue.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BatchHeader {
    /// A [`BatchKind`].
    pub kind: u8,
    /// [`BatchFlags`].
    pub flags: u8,
    /// Bytes of one entry: 32 for [`BatchKind::Entries`], 8 for [`BatchKind::PageList`].
    pub entry_bytes: U16,
    /// Entries, 1 to the limit of the queue.
    pub entry_count: U32,
    /// Echoed in the completion record.
    pub cookie: U64,
    /// The session's generation; another one is `StaleGeneration`.
    pub generation: U64,
    /// Zero.
    pub reserved: U64,
}

impl BatchHeader {
    /// A header for `entry_count` entries.
    pub fn new(
        kind: BatchKind,
        flags: BatchFlags,
        entry_count: u32,
        cookie: u64,
        generation: u64,
    ) -> Self {
        let entry_bytes = match kind {
            BatchKind::Entries => 32,
            BatchKind::PageList => 8,
        };
        Self {
            kind: kind as u8,
            flags: flags.0,
            entry_bytes: U16::new(entry_bytes),
            entry_count: U32::new(entry_count),
            cookie: U64::new(cookie),
            generation: U64::new(generation),
            reserved: U64::new(0),
        }
    }

    /// Checks every field against the limits, for a driver that negotiated `features`; `max_entries` is that of the
    /// queue.
    ///
    /// # Errors
    /// `BadOp`, `BadFlags`, `ReservedNonZero`, `BadLength` (entry size) or `BadCount`.
    pub fn validate(&self, max_entries: u32, features: Features) -> Result<BatchKind, Status> {
        let (kind, entry_bytes) = match self.kind {
            1 => (BatchKind::Entries, 32),
            2 if features.contains(Features::PAGE_LIST) => (BatchKind::PageList, 8),
            _ => return Err(Status::BadOp),
        };
        let flags = match features.contains(Features::STATUS_ARRAY) {
            true => BatchFlags::ALL.0,
            false => BatchFlags::ALL.0 & !BatchFlags::STATUS_ARRAY.0,
        };
        if self.flags & !flags != 0 {
            return Err(Status::BadFlags);
        }
        if self.reserved.get() != 0 {
            return Err(Status::ReservedNonZero);
        }
        if self.entry_bytes.get() != entry_bytes {
            return Err(Status::BadLength);
        }
        if self.entry_count.get() == 0 || self.entry_count.get() > max_entries {
            return Err(Status::BadCount);
        }
        Ok(kind)
    }

    /// The flags as a set.
    pub const fn flags(&self) -> BatchFlags {
        BatchFlags(self.flags)
    }
}

/// The operation of an entry or a page list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Guest memory to device memory.
    ToDevice = 1,
    /// Device memory to guest memory.
    ToSystem = 2,
    /// Device memory to device memory; `address` is the source offset.
    Copy = 3,
    /// Device memory is filled with the 64-bit pattern in `address`.
    Fill = 4,
    /// Nothing; with `FENCE`, a barrier between entries.
    Nop = 5,
}

impl Op {
    /// The operation of a wire byte.
    pub const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::ToDevice),
            2 => Some(Self::ToSystem),
            3 => Some(Self::Copy),
            4 => Some(Self::Fill),
            5 => Some(Self::Nop),
            _ => None,
        }
    }

    /// Whether a driver that negotiated `features` may ask for it.
    pub const fn is_allowed(self, features: Features) -> bool {
        match self {
            Self::Copy => features.contains(Features::DEVICE_COPY),
            Self::Fill => features.contains(Features::FILL),
            Self::ToDevice | Self::ToSystem | Self::Nop => true,
        }
    }

    /// The name used in logs and statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToDevice => "to_device",
            Self::ToSystem => "to_system",
            Self::Copy => "copy",
            Self::Fill => "fill",
            Self::Nop => "nop",
        }
    }
}

/// Flags of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryFlags(pub u8);

impl EntryFlags {
    /// Start only when all earlier entries of the batch are done.
    pub const FENCE: Self = Self(1 << 0);
    /// Fill the device source with zeros after the copy (`Op::ToSystem` only).
    pub const SCRUB: Self = Self(1 << 1);
    /// A hint: the destination will not be read soon.
    pub const NON_TEMPORAL: Self = Self(1 << 2);
    /// Every flag of this version.
    pub const ALL: Self = Self(Self::FENCE.0 | Self::SCRUB.0 | Self::NON_TEMPORAL.0);

    /// Every flag that a driver which negotiated `features` may set.
    pub const fn of(features: Features) -> Self {
        match features.contains(Features::SCRUB) {
            true => Self::ALL,
            false => Self(Self::ALL.0 & !Self::SCRUB.0),
        }
    }

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One copy descriptor.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CopyEntry {
    /// An [`Op`].
    pub op: u8,
    /// [`EntryFlags`].
    pub flags: u8,
    /// Zero.
    pub reserved: U16,
    /// Bytes: a multiple of 8, at most `max_entry_bytes`; 0 for `Nop`.
    pub len: U32,
    /// `ToDevice`, `ToSystem`: guest DMA address. `Copy`: source offset in device memory, bytes. `Fill`: the pattern.
    pub address: U64,
    /// Offset in device memory, bytes, a multiple of 8.
    pub device_address: U64,
    /// Zero.
    pub reserved2: U64,
}

impl CopyEntry {
    /// An entry without flags.
    pub fn new(op: Op, address: u64, device_address: u64, len: u32) -> Self {
        Self {
            op: op as u8,
            flags: 0,
            reserved: U16::new(0),
            len: U32::new(len),
            address: U64::new(address),
            device_address: U64::new(device_address),
            reserved2: U64::new(0),
        }
    }

    /// Checks all that can be checked without the guest's memory table: operation, flags, reserved fields, length,
    /// alignment and the device range(s), for a driver that negotiated `features`.
    ///
    /// # Errors
    /// The [`Status`] that the entry gets.
    #[inline]
    pub fn validate(&self, limits: &Limits, features: Features) -> Result<Op, Status> {
        let op = (Op::from_wire(self.op))
            .filter(|op| op.is_allowed(features))
            .ok_or(Status::BadOp)?;
        if self.flags & !EntryFlags::of(features).0 != 0 {
            return Err(Status::BadFlags);
        }
        if self.flags & EntryFlags::SCRUB.0 != 0 && op != Op::ToSystem {
            return Err(Status::BadFlags);
        }
        if self.reserved.get() != 0 || self.reserved2.get() != 0 {
            return Err(Status::ReservedNonZero);
        }
        let len = self.len.get();
        if op == Op::Nop {
            return if len != 0 {
                Err(Status::BadLength)
            } else if self.address.get() != 0 || self.device_address.get() != 0 {
                Err(Status::ReservedNonZero)
            } else {
                Ok(op)
            };
        }
        if len == 0 || len % 8 != 0 || len > limits.max_entry_bytes {
            return Err(Status::BadLength);
        }
        check_device_range(
            self.device_address.get(),
            u64::from(len),
            limits.memory_bytes,
        )?;
        match op {
            Op::ToDevice | Op::ToSystem => {
                if self.address.get() % 8 != 0
                    || self.address.get().checked_add(u64::from(len)).is_none()
                {
                    return Err(Status::BadGuestAddress);
                }
            }
            Op::Copy => {
                let (source, destination) = (self.address.get(), self.device_address.get());
                check_device_range(source, u64::from(len), limits.memory_bytes)?;
                if source.abs_diff(destination) < u64::from(len) {
                    return Err(Status::Overlap);
                }
            }
            Op::Fill | Op::Nop => {}
        }
        Ok(op)
    }
}

/// What precedes the addresses of a [`BatchKind::PageList`]: scattered guest pages against one contiguous extent of
/// device memory. Page `i` of the list is at `device_address + (i << page_shift)`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PageList {
    /// `Op::ToDevice` or `Op::ToSystem`.
    pub op: u8,
    /// [`EntryFlags`], for all pages; `FENCE` is not allowed here.
    pub flags: u8,
    /// Zero.
    pub reserved: U16,
    /// log2 of the page size in bytes; 12 in this version.
    pub page_shift: U32,
    /// Offset of the extent in device memory, bytes, a multiple of the page size.
    pub device_address: U64,
    /// Zero.
    pub reserved2: [U64; 2],
}

impl PageList {
    /// A page list without flags.
    pub fn new(op: Op, page_shift: u32, device_address: u64) -> Self {
        Self {
            op: op as u8,
            flags: 0,
            reserved: U16::new(0),
            page_shift: U32::new(page_shift),
            device_address: U64::new(device_address),
            reserved2: [U64::new(0); 2],
        }
    }

    /// Checks all that can be checked without the guest's memory table, for a list of `pages` pages of a driver that
    /// negotiated `features`.
    ///
    /// # Errors
    /// The [`Status`] that the whole batch gets.
    pub fn validate(&self, pages: u32, limits: &Limits, features: Features) -> Result<Op, Status> {
        let op = match Op::from_wire(self.op) {
            Some(op @ (Op::ToDevice | Op::ToSystem)) => op,
            _ => return Err(Status::BadOp),
        };
        let flags = EntryFlags::of(features).0 & !EntryFlags::FENCE.0;
        if self.flags & !flags != 0 || (self.flags & EntryFlags::SCRUB.0 != 0 && op != Op::ToSystem)
        {
            return Err(Status::BadFlags);
        }
        if self.reserved.get() != 0 || self.reserved2.iter().any(|word| word.get() != 0) {
            return Err(Status::ReservedNonZero);
        }
        if self.page_shift.get() != 12 {
            return Err(Status::BadLength);
        }
        if self.device_address.get() % 4096 != 0 {
            return Err(Status::BadDeviceRange);
        }
        check_device_range(
            self.device_address.get(),
            u64::from(pages) << 12,
            limits.memory_bytes,
        )?;
        Ok(op)
    }
}

/// A device range must start at a multiple of 8, must not wrap and must end within device memory.
fn check_device_range(start: u64, len: u64, memory_bytes: u64) -> Result<(), Status> {
    match start.checked_add(len) {
        Some(end) if end <= memory_bytes && start % 8 == 0 => Ok(()),
        _ => Err(Status::BadDeviceRange),
    }
}
