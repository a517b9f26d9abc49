// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a page is in system memory, without touching it.

use crate::cases::support::memory::PAGE;
use anyhow::{Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bit of an entry: the page is present.
const PRESENT: u64 = 1 << 63;
/// Bit of an entry: the page is in swap, or, as here, on a device.
const SWAPPED: u64 = 1 << 62;

/// The kernel's table of the process's pages.
pub(super) struct Pagemap(File);

impl Pagemap {
    pub(super) fn open() -> Result<Self> {
        File::open("/proc/self/pagemap")
            .map(Self)
            .context("cannot open /proc/self/pagemap")
    }

    /// Whether the page at an address is there, but not in system memory. Nothing is swapped out in this guest.
    pub(super) fn is_elsewhere(&self, address: usize) -> Result<bool> {
        let mut entry = [0; 8];
        self.0
            .read_exact_at(&mut entry, (address / PAGE * 8) as u64)
            .context("cannot read /proc/self/pagemap")?;
        let entry = u64::from_ne_bytes(entry);
        Ok(entry & SWAPPED != 0 && entry & PRESENT == 0)
    }
}
