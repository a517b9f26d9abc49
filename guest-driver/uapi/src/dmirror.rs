// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! What `/dev/hmm_dmirror0` and `/dev/hmm_dmirror1` speak: the interface of the kernel's own test driver of HMM
//! (`lib/test_hmm_uapi.h` of the kernel's source), so that its test program runs on this driver unmodified.
//!
//! The nodes exist only if the module is loaded with `dmirror=1`. An open file mirrors the address space of the
//! process that opened it, whichever process makes the calls.
//!
//! Every call takes a [`Command`] by `_IOWR`. The driver writes it back only when the call succeeds. Errors of every
//! call: `EINVAL` the address is not page aligned or the range is empty or wraps, `ENOTTY` no such call, `ENODEV`
//! the device is gone.

use core::mem::size_of;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The ioctl type byte.
pub const IOCTL_TYPE: u8 = b'H';
/// The device reads the range into the buffer. Addresses without a translation count as one fault from the first of
/// them to the end of the range, which the driver answers as a whole. Errors: those of the fault (`EFAULT`, `EPERM`).
pub const READ_NR: u8 = 0;
/// The device writes the buffer to the range. Faults and errors as for READ.
pub const WRITE_NR: u8 = 1;
/// Migrates the range to the device, holes as zeroed pages, and then has the device read the range into the buffer.
/// Errors: `EINVAL` a part of the range has no mapping, or one that cannot be read or migrated, `ENOENT` a page has no
/// translation afterwards.
pub const MIGRATE_TO_DEVICE_NR: u8 = 2;
/// Migrates the range to system memory. Errors: `EINVAL` as for `MIGRATE_TO_DEVICE`.
pub const MIGRATE_TO_SYSTEM_NR: u8 = 3;
/// Writes one byte for each page of the range to the buffer: how the process maps it ([`PROT_ERROR`] and its like).
/// Faults nothing in.
pub const SNAPSHOT_NR: u8 = 4;
/// Takes the pages from the CPUs, so that the device alone may use them, until a CPU touches them; then has the
/// device read the range into the buffer. Errors: those of `make_device_exclusive()`.
pub const EXCLUSIVE_NR: u8 = 5;
/// Errors: `EPERM` the device still has a page of the range exclusively.
pub const CHECK_EXCLUSIVE_NR: u8 = 6;
/// Evicts all pages from the device, of whichever process.
pub const RELEASE_NR: u8 = 7;
/// Sets the flags of the file to `Command::pages` ([`FLAG_FAIL_ALLOC`]).
pub const FLAGS_NR: u8 = 8;
/// As READ, but faults may drop the mmap lock, as those of userfaultfd do.
pub const READ_UNLOCKED_NR: u8 = 9;

/// The next migration finds no huge page for its destinations, and uses single ones.
pub const FLAG_FAIL_ALLOC: u64 = 1;

/// There is no mapping, or it cannot be read.
pub const PROT_ERROR: u8 = 0xff;
/// There is no page, or one that the device may not know, as that of another device.
pub const PROT_NONE: u8 = 0;
/// A page that can be read.
pub const PROT_READ: u8 = 0x01;
/// A page that can be written.
pub const PROT_WRITE: u8 = 0x02;
/// The page is a part of one that one entry of a page middle directory maps.
pub const PROT_PMD: u8 = 0x04;
/// The page is a part of one that one entry of a page upper directory maps.
pub const PROT_PUD: u8 = 0x08;
/// The page of zeros.
pub const PROT_ZERO: u8 = 0x10;
/// A page on this device.
pub const PROT_DEVICE: u8 = 0x20;

/// The argument of each call.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Command {
    /// Where the range begins, in the address space that the file mirrors; page aligned.
    pub address: u64,
    /// Where the buffer is, in the address space of the caller.
    pub buffer: u64,
    /// Pages of the range.
    pub pages: u64,
    /// Written by the driver: pages that were read, written, migrated or looked at.
    pub done: u64,
    /// Written by the driver: device page faults.
    pub faults: u64,
}

const _: () = assert!(size_of::<Command>() == 40);
