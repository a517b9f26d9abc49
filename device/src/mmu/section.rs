// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A section: a short stretch of a job in which translations stay as they are. All accesses of jobs happen in one.

use std::cell::Cell;

use hmm_protocol::{FaultAccess, MapFlags, VIRTUAL_ADDRESS_END};
use vm_memory::VolatileSlice;

use super::{
    AccessBits,
    entry::{Entry, GRANULE_BYTES, GRANULE_SHIFT, PAGE_BYTES, PAGE_SHIFT, PAGES},
    table::{Leaf, PageTable},
};
use crate::{
    guest_memory::{GuestMemory, Hint},
    inject::Faults,
    memory::DeviceMemory,
};

/// Granules that a section remembers.
const REMEMBERED: usize = 16;

/// What the targets of translations are in.
#[derive(Clone, Copy, Debug)]
pub struct Memories<'a> {
    /// The guest's memory. The caller is in the device's gate, so it stays as it is.
    pub guest: &'a GuestMemory,
    /// The device's memory.
    pub device: &'a DeviceMemory,
    /// Where accesses to the device's memory are noted.
    pub accessed: &'a AccessBits,
    /// Which of the device's memory is poisoned.
    pub faults: &'a Faults,
}

/// Why there was no access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissReason {
    /// Nothing is mapped.
    Unmapped,
    /// What is mapped does not permit the access.
    Forbidden,
    /// What is mapped is not in the guest's memory table (any more).
    BadTarget,
    /// What is mapped is poisoned device memory.
    Poison,
}

/// An access that did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The first address that cannot be accessed.
    pub address: u64,
    /// What was wanted.
    pub access: FaultAccess,
    /// Why not.
    pub reason: MissReason,
}

/// What is mapped at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Permissions, and `DEVICE` for device memory; nothing if nothing is mapped.
    pub flags: MapFlags,
    /// Bytes from the address on of which the same is true; at least 1. There may be more.
    pub bytes: u64,
}

/// A section of a job.
pub struct Section<'a> {
    table: &'a PageTable,
    memories: &'a Memories<'a>,
    should_leave: &'a dyn Fn() -> bool,
    hint: Cell<Hint>,
    remembered: [Cell<(u64, Option<&'a Leaf>)>; REMEMBERED],
    may_be_poisoned: bool,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        table: &'a PageTable,
        memories: &'a Memories<'a>,
        should_leave: &'a dyn Fn() -> bool,
    ) -> Self {
        Self {
            table,
            memories,
            should_leave,
            hint: Cell::default(),
            // No granule has this number.
            remembered: [const { Cell::new((u64::MAX, None)) }; REMEMBERED],
            may_be_poisoned: memories.faults.any(),
        }
    }

    /// Whether a change of page tables or of the memory table, or a stop, waits for this section to end. Ask often: at least
    /// every few microseconds.
    #[inline]
    pub fn should_leave(&self) -> bool {
        (self.should_leave)()
    }

    /// Where the bytes from `address` on are: at least 1 and at most `len` (0 counts as 1) that lie one behind the other and
    /// that permit `access`, one of its bits. The guest and other jobs may access them at the same time.
    ///
    /// # Errors
    /// The first byte cannot be accessed in this way.
    #[inline]
    pub fn span(
        &self,
        address: u64,
        len: u64,
        access: FaultAccess,
    ) -> Result<VolatileSlice<'_>, Miss> {
        let miss = |reason| Miss {
            address,
            access,
            reason,
        };
        let leaf = self.leaf(address).ok_or(miss(MissReason::Unmapped))?;
        let page = page_of(address);
        let entry = leaf.entry(page);
        if !entry.flags().contains(needed(access)) {
            return Err(miss(match entry.is_mapped() {
                true => MissReason::Forbidden,
                false => MissReason::Unmapped,
            }));
        }
        let within = address % PAGE_BYTES;
        let wanted = len.clamp(1, GRANULE_BYTES);
        // At most a granule and a page, so the sum and the number of pages are small.
        let pages = (within + wanted).div_ceil(PAGE_BYTES) as usize;
        let mapped = (leaf.run(page, pages) as u64) << PAGE_SHIFT;
        let run = wanted.min(mapped - within);
        let writes = access != FaultAccess::READ && access != FaultAccess::FETCH;
        self.host(entry, within, run, writes).map_err(miss)
    }

    /// What is mapped at `address`, whatever is behind it.
    pub fn look(&self, address: u64) -> Look {
        let nothing_up_to = |end: u64| Look {
            flags: MapFlags::default(),
            bytes: end.saturating_sub(address).max(1),
        };
        let granule = address >> GRANULE_SHIFT;
        match self.table.next_leaf(granule) {
            Some((found, leaf)) if found == granule => {
                let page = page_of(address);
                let flags = leaf.entry(page).flags();
                let pages = (page..PAGES)
                    .take_while(|page| leaf.entry(*page).flags() == flags)
                    .count();
                Look {
                    flags,
                    bytes: ((pages as u64) << PAGE_SHIFT) - address % PAGE_BYTES,
                }
            }
            Some((found, _)) => nothing_up_to(found << GRANULE_SHIFT),
            None => nothing_up_to(u64::MAX),
        }
    }

    /// How the granule of `address` is mapped. What was looked up lately is remembered.
    #[inline]
    fn leaf(&self, address: u64) -> Option<&'a Leaf> {
        let granule = address >> GRANULE_SHIFT;
        let place = &self.remembered[(granule % REMEMBERED as u64) as usize];
        let (known, leaf) = place.get();
        if known == granule {
            return leaf;
        }
        if address >= VIRTUAL_ADDRESS_END {
            return None;
        }
        let leaf = self.table.leaf(granule);
        place.set((granule, leaf));
        leaf
    }

    /// Where `run` bytes from byte `within` of the page of `entry` on are; fewer if only so many lie together.
    #[inline]
    fn host(
        &self,
        entry: Entry,
        within: u64,
        run: u64,
        writes: bool,
    ) -> Result<VolatileSlice<'_>, MissReason> {
        // It does not wrap: a target and what is mapped behind it were checked when they were mapped.
        let start = entry.target().wrapping_add(within);
        let (host, len) = if entry.flags().contains(MapFlags::DEVICE) {
            let at = (self.memories.device.at(start, run)).ok_or(MissReason::BadTarget)?;
            if self.may_be_poisoned && self.memories.faults.is_poisoned(start, run) {
                return Err(MissReason::Poison);
            }
            self.memories.accessed.note(start, run, writes);
            (at, run)
        } else {
            let mut hint = self.hint.get();
            let guest = self.memories.guest;
            // A page may reach over the border of two regions.
            let in_page = run.min(PAGE_BYTES - within);
            let found = [run, in_page].into_iter().find_map(|len| {
                let at = guest.contiguous(start, len, &mut hint)?;
                Some((at, len))
            });
            self.hint.set(hint);
            found.ok_or(MissReason::BadTarget)?
        };
        // SAFETY: `host` is the start of `len` mapped bytes: `DeviceMemory::at` and `GuestMemory::contiguous` promise it. Both
        // memories outlive this section, which the result borrows, and only raw accesses and atomics touch their bytes.
        Ok(unsafe { VolatileSlice::new(host, len as usize) })
    }
}

/// Which page of its granule an address is in.
#[inline]
fn page_of(address: u64) -> usize {
    (address >> PAGE_SHIFT) as usize % PAGES
}

/// What must be permitted for an access.
#[inline]
fn needed(access: FaultAccess) -> MapFlags {
    match access {
        FaultAccess::READ | FaultAccess::FETCH => MapFlags::READ,
        FaultAccess::WRITE => MapFlags::READ.union(MapFlags::WRITE),
        _ => MapFlags::PERMISSIONS,
    }
}
