// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The page tables of one context: a sorted map of granules of 2 MiB, each mapped by one huge page or by small ones.
//!
//! A sorted map, and not levels of arrays: an unmap of a terabyte costs what is mapped there, and a context that maps
//! little takes little.

use std::{collections::BTreeMap, ops::Range};

use hmm_protocol::MapFlags;

use super::{
    budget::{Charge, Exhausted},
    entry::{Entry, GRANULE_BYTES, GRANULE_SHIFT, PAGE_BYTES, PAGE_SHIFT, PAGES},
};

/// What a granule takes in the sorted map: its key, its leaf, and its share of what the nodes do not use. They may be half empty.
const LEAF_BYTES: u64 = 56;
/// What the entries of small pages take.
const SMALL_BYTES: u64 = (PAGES * size_of::<Entry>()) as u64;

/// How a granule is mapped.
#[derive(Debug)]
pub(super) enum Leaf {
    /// By one huge page.
    Huge(Entry),
    /// By small pages.
    Small {
        /// How many of them are mapped; never 0.
        mapped: u16,
        entries: Box<[Entry; PAGES]>,
    },
}

impl Leaf {
    /// The entry of small page `page`.
    #[inline]
    pub(super) fn entry(&self, page: usize) -> Entry {
        match self {
            Self::Huge(entry) => entry.after(page),
            Self::Small { entries, .. } => entries.get(page).copied().unwrap_or(Entry::NONE),
        }
    }

    /// How many small pages from `page` on, at most `most`, lie one behind the other with the same flags. At least 1 if the
    /// first is mapped.
    #[inline]
    pub(super) fn run(&self, page: usize, most: usize) -> usize {
        match self {
            Self::Huge(_) => most.min(PAGES - page),
            Self::Small { entries, .. } => {
                let first = self.entry(page);
                entries[page..]
                    .iter()
                    .take(most)
                    .enumerate()
                    .take_while(|(index, entry)| **entry == first.after(*index))
                    .count()
            }
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Huge(_) => LEAF_BYTES,
            Self::Small { .. } => LEAF_BYTES + SMALL_BYTES,
        }
    }
}

/// The page tables of one context.
#[derive(Debug)]
pub(super) struct PageTable {
    leaves: BTreeMap<u64, Leaf>,
    charge: Charge,
}

impl PageTable {
    /// Page tables that map nothing. What they take is on `charge`.
    pub(super) fn new(charge: Charge) -> Self {
        Self {
            leaves: BTreeMap::new(),
            charge,
        }
    }

    /// How granule `granule` is mapped.
    #[inline]
    pub(super) fn leaf(&self, granule: u64) -> Option<&Leaf> {
        self.leaves.get(&granule)
    }

    /// The first granule from `granule` on in which something is mapped.
    pub(super) fn next_leaf(&self, granule: u64) -> Option<(u64, &Leaf)> {
        let (granule, leaf) = self.leaves.range(granule..).next()?;
        Some((*granule, leaf))
    }

    /// Bytes that the tables take.
    pub(super) fn bytes(&self) -> u64 {
        self.charge.bytes()
    }

    /// Maps granule `granule` by a huge page.
    ///
    /// # Errors
    /// There is no memory left; the granule is mapped as before.
    pub(super) fn map_huge(&mut self, granule: u64, entry: Entry) -> Result<(), Exhausted> {
        if !self.leaves.contains_key(&granule) {
            self.charge.take(LEAF_BYTES)?;
        }
        if let Some(Leaf::Small { .. }) = self.leaves.insert(granule, Leaf::Huge(entry)) {
            self.charge.give(SMALL_BYTES);
        }
        Ok(())
    }

    /// Maps `pages` of granule `granule` by small pages, of which `first` is the first.
    ///
    /// # Errors
    /// There is no memory left; the granule is mapped as before.
    pub(super) fn map_small(
        &mut self,
        granule: u64,
        pages: Range<usize>,
        first: Entry,
    ) -> Result<(), Exhausted> {
        let Self { leaves, charge } = self;
        let leaf = match leaves.entry(granule) {
            std::collections::btree_map::Entry::Occupied(leaf) => leaf.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                charge.take(LEAF_BYTES + SMALL_BYTES)?;
                place.insert(Leaf::Small {
                    mapped: 0,
                    entries: Box::new([Entry::NONE; PAGES]),
                })
            }
        };
        if let Leaf::Huge(entry) = *leaf {
            charge.take(SMALL_BYTES)?;
            *leaf = split(entry);
        }
        if let Leaf::Small { mapped, entries } = leaf {
            for (index, entry) in entries[pages].iter_mut().enumerate() {
                *mapped += u16::from(!entry.is_mapped());
                *entry = first.after(index);
            }
        }
        Ok(())
    }

    /// Takes away what `keep` lacks in [`start`, `end`), multiples of the small page; everything if it lacks `READ`. Looks at
    /// `most` granules, and returns where to go on if that was not enough.
    ///
    /// It never fails: where a huge page is covered in part and there is no memory left to split it, the whole page loses
    /// what its part loses. Jobs that need the rest fault.
    pub(super) fn restrict(
        &mut self,
        start: u64,
        end: u64,
        keep: MapFlags,
        most: usize,
    ) -> Option<u64> {
        let mut at = start;
        for _ in 0..most {
            if at >= end {
                return None;
            }
            let last = (end - 1) >> GRANULE_SHIFT;
            let (&granule, _) = self.leaves.range(at >> GRANULE_SHIFT..=last).next()?;
            let first = granule << GRANULE_SHIFT;
            let pages = page_of(at.max(first), first)..page_of(end, first);
            self.restrict_granule(granule, pages, keep);
            // It does not wrap: addresses end at 2^57.
            at = first + GRANULE_BYTES;
        }
        (at < end).then_some(at)
    }

    fn restrict_granule(&mut self, granule: u64, pages: Range<usize>, keep: MapFlags) {
        let Self { leaves, charge } = self;
        let Some(leaf) = leaves.get_mut(&granule) else {
            return;
        };
        let is_whole = pages == (0..PAGES);
        if is_whole && !keep.contains(MapFlags::READ) {
            charge.give(leaf.bytes());
            leaves.remove(&granule);
            return;
        }
        if let Leaf::Huge(entry) = *leaf {
            if is_whole || entry.restricted(keep) == entry || charge.take(SMALL_BYTES).is_err() {
                *leaf = Leaf::Huge(entry.restricted(keep));
            } else {
                *leaf = split(entry);
            }
        }
        let is_empty = match leaf {
            Leaf::Huge(entry) => !entry.is_mapped(),
            Leaf::Small { mapped, entries } => {
                for entry in &mut entries[pages] {
                    let restricted = entry.restricted(keep);
                    *mapped -= u16::from(entry.is_mapped() && !restricted.is_mapped());
                    *entry = restricted;
                }
                *mapped == 0
            }
        };
        if is_empty && let Some(leaf) = leaves.remove(&granule) {
            charge.give(leaf.bytes());
        }
    }
}

/// The small pages of a huge page.
fn split(huge: Entry) -> Leaf {
    let mut entries = Box::new([Entry::NONE; PAGES]);
    for (index, entry) in entries.iter_mut().enumerate() {
        *entry = huge.after(index);
    }
    Leaf::Small {
        mapped: PAGES as u16,
        entries,
    }
}

/// Which page of the granule that begins at `first` address `at` is in; the number of pages if it is behind the granule.
fn page_of(at: u64, first: u64) -> usize {
    debug_assert!(at >= first);
    ((at.saturating_sub(first) >> PAGE_SHIFT) as usize).min(PAGES)
}

const _: () = assert!(PAGE_BYTES == 4096);

#[cfg(test)]
mod tests;
