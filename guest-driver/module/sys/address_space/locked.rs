// SPDX-License-Identifier: GPL-2.0-only

//! What all guards of an mmap lock have in common.

use kernel::mm::MmWithUser;

/// A guard of the mmap lock.
///
/// # Safety
///
/// While the value lives the mmap lock of [`MmapLocked::mm`] is held, for reading or for writing.
pub(crate) unsafe trait MmapLocked {
    /// The address space whose lock is held.
    fn mm(&self) -> &MmWithUser;
}
