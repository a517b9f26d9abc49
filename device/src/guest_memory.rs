// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's memory as a flat, sorted table of mapped regions.
//!
//! Only raw pointers leave this module. There is no reference to guest memory, because the guest writes to it at
//! any time.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// A guest range is not, or not wholly, in the memory table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfTable;

/// One region: guest addresses [`start`, `start + len`) are mapped at `host`.
#[derive(Clone, Copy, Debug)]
struct Region {
    start: u64,
    len: u64,
    host: *mut u8,
}

/// The table. It keeps the mappings alive that its pointers point into.
pub struct GuestMemory {
    regions: Vec<Region>,
    mappings: Arc<GuestMemoryMmap>,
    epoch: u64,
}

// SAFETY: the pointers point into `mappings`, which is kept and may be used from any thread; the bytes behind them are
// only accessed through raw pointers and atomics.
unsafe impl Send for GuestMemory {}
// SAFETY: as above.
unsafe impl Sync for GuestMemory {}

impl fmt::Debug for GuestMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.regions.iter().map(|region| (region.start, region.len)))
            .finish()
    }
}

/// Remembers the region of the last look-up, since the next one is mostly in the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hint(usize);

impl GuestMemory {
    /// The table of `mappings`.
    pub fn new(mappings: Arc<GuestMemoryMmap>) -> Self {
        let mut regions: Vec<Region> = mappings
            .iter()
            .map(|region| Region {
                start: region.start_addr().raw_value(),
                len: region.len(),
                host: region.as_ptr(),
            })
            .collect();
        regions.sort_unstable_by_key(|region| region.start);
        static EPOCHS: AtomicU64 = AtomicU64::new(1);
        Self {
            regions,
            mappings,
            epoch: EPOCHS.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// A table without memory.
    pub fn empty() -> Self {
        Self::new(Arc::new(GuestMemoryMmap::new()))
    }

    /// A number that no other table of this process has; never 0.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether every byte of [`address`, `address + len`) is in the table.
    pub fn contains(&self, address: u64, len: u64) -> bool {
        self.covers(address, len).is_ok()
    }

    /// The mappings, to walk rings with.
    pub fn mappings(&self) -> &GuestMemoryMmap {
        &self.mappings
    }

    /// Number of regions and bytes in all.
    pub fn extent(&self) -> (usize, u64) {
        (
            self.regions.len(),
            self.regions.iter().map(|region| region.len).sum(),
        )
    }

    /// Where guest range [`address`, `address + len`) is mapped, if one region holds it whole.
    #[inline]
    pub fn contiguous(&self, address: u64, len: u64, hint: &mut Hint) -> Option<*mut u8> {
        let region = match self.regions.get(hint.0) {
            Some(region) if address.wrapping_sub(region.start) < region.len => region,
            _ => {
                let index = self.find(address)?;
                hint.0 = index;
                &self.regions[index]
            }
        };
        let offset = address - region.start;
        if len > region.len - offset {
            return None;
        }
        // SAFETY: `offset` is less than the region's length, so the result is within its mapping.
        Some(unsafe { region.host.add(offset as usize) })
    }

    /// Calls `each` with the mapped pieces of [`address`, `address + len`) in order. A range may cross regions that
    /// touch each other; nothing is called unless all of it is in the table.
    ///
    /// # Errors
    /// Some byte is not in the table, or the range wraps.
    pub fn pieces(
        &self,
        address: u64,
        len: u64,
        mut each: impl FnMut(*mut u8, usize),
    ) -> Result<(), OutOfTable> {
        let mut hint = Hint::default();
        if len == 0 {
            return Ok(());
        }
        if let Some(host) = self.contiguous(address, len, &mut hint) {
            each(host, len as usize);
            return Ok(());
        }
        self.covers(address, len)?;
        let (mut at, mut left) = (address, len);
        while left > 0 {
            let region = &self.regions[self.find(at).ok_or(OutOfTable)?];
            let offset = at - region.start;
            let here = left.min(region.len - offset);
            // SAFETY: `offset` is less than the region's length, so the result is within its mapping.
            each(unsafe { region.host.add(offset as usize) }, here as usize);
            // `covers` has shown that the range does not wrap.
            at = at.wrapping_add(here);
            left -= here;
        }
        Ok(())
    }

    /// Copies guest memory from `address` into `buffer`.
    ///
    /// # Errors
    /// Some byte is not in the table; `buffer` is as it was.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutOfTable> {
        let mut done = 0;
        self.pieces(address, buffer.len() as u64, |host, len| {
            // SAFETY: `host` is the start of `len` mapped bytes, and the pieces add up to the length of `buffer`, which
            // is private memory and cannot overlap.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    host.cast_const(),
                    buffer.as_mut_ptr().add(done),
                    len,
                );
            }
            done += len;
        })
    }

    /// Copies `bytes` to guest memory at `address`.
    ///
    /// # Errors
    /// Some byte is not in the table; nothing is written.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), OutOfTable> {
        let mut done = 0;
        self.pieces(address, bytes.len() as u64, |host, len| {
            // SAFETY: `host` is the start of `len` mapped bytes, and the pieces add up to the length of `bytes`, which
            // is private memory and cannot overlap.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().add(done), host, len) };
            done += len;
        })
    }

    /// Stores one byte after everything that was written before it.
    ///
    /// # Errors
    /// The byte is not in the table.
    pub fn store_release(&self, address: u64, byte: u8) -> Result<(), OutOfTable> {
        let host = self
            .contiguous(address, 1, &mut Hint::default())
            .ok_or(OutOfTable)?;
        // SAFETY: `host` is one mapped byte, always aligned, that stays mapped for this call, and all other accesses of
        // this process to it are raw too.
        unsafe { AtomicU8::from_ptr(host) }.store(byte, Ordering::Release);
        Ok(())
    }

    /// Whether every byte of the range is in the table.
    fn covers(&self, address: u64, len: u64) -> Result<(), OutOfTable> {
        address.checked_add(len).ok_or(OutOfTable)?;
        let (mut at, mut left) = (address, len);
        while left > 0 {
            let region = &self.regions[self.find(at).ok_or(OutOfTable)?];
            let here = left.min(region.len - (at - region.start));
            at = at.wrapping_add(here);
            left -= here;
        }
        Ok(())
    }

    fn find(&self, address: u64) -> Option<usize> {
        let after = self
            .regions
            .partition_point(|region| region.start <= address);
        let index = after.checked_sub(1)?;
        let region = &self.regions[index];
        (address - region.start < region.len).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::GuestAddress;

    use super::{Arc, GuestMemory, GuestMemoryMmap, OutOfTable};

    /// Two regions that touch, a gap, and a third.
    const RANGES: [(u64, u64); 3] = [(0, 0x3000), (0x3000, 0x2000), (0x8000, 0x1000)];

    fn table() -> GuestMemory {
        let ranges: Vec<_> = RANGES
            .iter()
            .map(|(start, len)| (GuestAddress(*start), *len as usize))
            .collect();
        GuestMemory::new(Arc::new(
            GuestMemoryMmap::from_ranges(&ranges).expect("regions"),
        ))
    }

    /// The rule, in 128 bits and byte by byte.
    fn in_table(address: u64, len: u64) -> bool {
        let (start, end) = (u128::from(address), u128::from(address) + u128::from(len));
        (start..end).all(|byte| {
            RANGES
                .iter()
                .any(|(start, len)| byte >= u128::from(*start) && byte < u128::from(start + len))
        })
    }

    #[test]
    fn what_is_written_is_read_across_regions() {
        let table = table();
        let bytes: Vec<u8> = (0..0x1800u32).map(|index| (index * 7) as u8).collect();
        table.write(0x2400, &bytes).expect("crosses one border");
        let mut read = vec![0; bytes.len()];
        table.read(0x2400, &mut read).expect("crosses one border");
        assert_eq!(read, bytes);
        assert_eq!(table.write(0x4fff, &[1, 2]), Err(OutOfTable));
        let mut byte = [0];
        table.read(0x4fff, &mut byte).expect("last byte");
        assert_eq!(byte, [0], "a refused write wrote a part");
    }

    proptest! {
        #[test]
        fn ranges_follow_the_model(
            address in prop_oneof![0u64..0xa000, (u64::MAX - 0x2000)..=u64::MAX],
            len in 0u64..0x4000,
        ) {
            let table = table();
            let mut total = 0;
            let found = table.pieces(address, len, |_, piece| total += piece as u64);
            prop_assert_eq!(found.is_ok(), in_table(address, len));
            prop_assert_eq!(total, if found.is_ok() { len } else { 0 });
        }
    }
}
