// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Changes of page tables, in slices, so that neither sections nor front ends wait long for a large one.

use hmm_protocol::{MapEntry, MapFlags, MapOp, Status};

use super::{
    entry::{Entry, GRANULE_BYTES, GRANULE_SHIFT, PAGE_SHIFT},
    table::PageTable,
};

/// Granules of one change that are changed while the context's gate is closed.
const GRANULES_OF_A_SLICE: usize = 32;
/// About as many steps, of a granule or a change each, are made while the gate is closed: 100 microseconds, if all need memory.
const STEPS_OF_AN_EDIT: usize = 64;

/// What an entry of a batch, which was validated, asks of the page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// To map [`start`, `end`) to `target` and what follows it.
    Map {
        /// First address, bytes.
        start: u64,
        /// End, exclusive.
        end: u64,
        /// What the first address is mapped to.
        target: u64,
        /// Permissions and kind of the target.
        flags: MapFlags,
        /// By pages of 2 MiB.
        huge: bool,
    },
    /// To take away what `keep` lacks in [`start`, `end`).
    Restrict {
        /// First address, bytes.
        start: u64,
        /// End, exclusive.
        end: u64,
        /// What stays.
        keep: MapFlags,
    },
}

/// How far a change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All is done.
    Done,
    /// All below this address is done.
    Upto(u64),
}

impl Change {
    /// The change that `entry`, which was validated, asks for; nothing if it answers a page fault.
    pub fn of(entry: &MapEntry) -> Option<Self> {
        let start = entry.address.get();
        // Validation has shown that it does not wrap.
        let end = start.saturating_add(entry.len.get());
        let keep = match MapOp::from_wire(entry.op)? {
            MapOp::Map => {
                return Some(Self::Map {
                    start,
                    end,
                    target: entry.target.get(),
                    flags: MapFlags(entry.flags),
                    huge: u32::from(entry.page_shift) == GRANULE_SHIFT,
                });
            }
            MapOp::Unmap => MapFlags::default(),
            MapOp::Protect => MapFlags(entry.flags),
            MapOp::Resume | MapOp::Fail => return None,
        };
        Some(Self::Restrict { start, end, keep })
    }

    /// Address and bytes in the guest's memory that it maps, if it does.
    pub fn target_in_guest(&self) -> Option<(u64, u64)> {
        match *self {
            Self::Map {
                start,
                end,
                target,
                flags,
                ..
            } if !flags.contains(MapFlags::DEVICE) => Some((target, end - start)),
            Self::Map { .. } | Self::Restrict { .. } => None,
        }
    }

    /// First address.
    pub fn start(&self) -> u64 {
        match self {
            Self::Map { start, .. } | Self::Restrict { start, .. } => *start,
        }
    }

    fn end(&self) -> u64 {
        match self {
            Self::Map { end, .. } | Self::Restrict { end, .. } => *end,
        }
    }

    /// Makes a slice of the change, from address `from` on.
    ///
    /// # Errors
    /// `Busy`: there is no memory left for page tables; the slice is made in part.
    pub(super) fn slice(&self, table: &mut PageTable, from: u64) -> Result<Progress, Status> {
        match *self {
            Self::Restrict { end, keep, .. } => {
                Ok(match table.restrict(from, end, keep, GRANULES_OF_A_SLICE) {
                    Some(at) => Progress::Upto(at),
                    None => Progress::Done,
                })
            }
            Self::Map {
                start,
                end,
                target,
                flags,
                huge,
            } => {
                let mut at = from;
                for _ in 0..GRANULES_OF_A_SLICE {
                    if at >= end {
                        return Ok(Progress::Done);
                    }
                    let granule = at >> GRANULE_SHIFT;
                    let first = granule << GRANULE_SHIFT;
                    // Nothing wraps: addresses end at 2^57, and the target was checked with its length.
                    let here = end.min(first + GRANULE_BYTES);
                    let entry = Entry::new(target.wrapping_add(at - start), flags);
                    let pages = ((at - first) >> PAGE_SHIFT) as usize
                        ..((here - first) >> PAGE_SHIFT) as usize;
                    let mapped = match huge {
                        true => table.map_huge(granule, entry),
                        false => table.map_small(granule, pages, entry),
                    };
                    mapped.map_err(|_| Status::Busy)?;
                    at = here;
                }
                Ok(if at < end {
                    Progress::Upto(at)
                } else {
                    Progress::Done
                })
            }
        }
    }
}

/// Page tables that no section uses, for a while.
pub struct Edit<'a> {
    table: &'a mut PageTable,
    steps: usize,
}

impl<'a> Edit<'a> {
    pub(super) fn new(table: &'a mut PageTable) -> Self {
        Self { table, steps: 0 }
    }

    /// Makes a slice of `change`, from address `from` on.
    ///
    /// # Errors
    /// `Busy`: there is no memory left for page tables; the slice is made in part.
    pub fn make(&mut self, change: &Change, from: u64) -> Result<Progress, Status> {
        let progress = change.slice(self.table, from)?;
        let reached = match progress {
            Progress::Done => change.end(),
            Progress::Upto(reached) => reached,
        };
        let granules = reached.saturating_sub(from) >> GRANULE_SHIFT;
        self.steps += 1 + (granules as usize).min(GRANULES_OF_A_SLICE);
        Ok(progress)
    }

    /// Whether sections have waited long enough: end the edit, and begin another one.
    pub fn is_over(&self) -> bool {
        self.steps >= STEPS_OF_AN_EDIT
    }
}
