// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An entry of a page table: where a page is, and what may be done with it.

use hmm_protocol::MapFlags;

/// log2 of the bytes of a small page.
pub(super) const PAGE_SHIFT: u32 = 12;
/// Bytes of a small page.
pub(super) const PAGE_BYTES: u64 = 1 << PAGE_SHIFT;
/// log2 of the bytes of a huge page. What a huge page covers is a granule, whether a huge page maps it or small ones do.
pub(super) const GRANULE_SHIFT: u32 = 21;
/// Bytes of a huge page.
pub(super) const GRANULE_BYTES: u64 = 1 << GRANULE_SHIFT;
/// Small pages of a granule.
pub(super) const PAGES: usize = (GRANULE_BYTES / PAGE_BYTES) as usize;

/// The flags in the low bits, which no address of a page has.
const FLAGS: u64 = MapFlags::ALL.0 as u64;

/// Where a page is and what may be done with it, in 8 bytes.
///
/// # Invariants
/// Nothing is mapped exactly if all bits are 0; else `READ` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry(u64);

impl Entry {
    /// Nothing is mapped.
    pub(super) const NONE: Self = Self(0);

    /// A page at `target`, a multiple of its size, with `flags`, which have `READ`.
    pub(super) fn new(target: u64, flags: MapFlags) -> Self {
        debug_assert!(target.is_multiple_of(PAGE_BYTES) && flags.contains(MapFlags::READ));
        Self(target & !(PAGE_BYTES - 1) | u64::from(flags.0) & FLAGS)
    }

    /// Whether something is mapped.
    pub(super) fn is_mapped(self) -> bool {
        self != Self::NONE
    }

    /// Permissions, and what kind of address the target is; nothing if nothing is mapped.
    pub(super) fn flags(self) -> MapFlags {
        MapFlags((self.0 & FLAGS) as u8)
    }

    /// Where the page is.
    pub(super) fn target(self) -> u64 {
        self.0 & !(PAGE_BYTES - 1)
    }

    /// The entry of the small page that is `pages` behind this one, if both were mapped by one range.
    pub(super) fn after(self, pages: usize) -> Self {
        match self.is_mapped() {
            // It does not wrap within a range that was checked; elsewhere the result is compared and not used.
            true => Self(self.0.wrapping_add((pages as u64) << PAGE_SHIFT)),
            false => Self::NONE,
        }
    }

    /// The entry without the permissions that `keep` lacks; nothing if `keep` lacks `READ`.
    pub(super) fn restricted(self, keep: MapFlags) -> Self {
        if !keep.contains(MapFlags::READ) {
            return Self::NONE;
        }
        let lost = MapFlags::PERMISSIONS.0 & !keep.0;
        Self(self.0 & !u64::from(lost))
    }
}
