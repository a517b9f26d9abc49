// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Changes of page tables, in slices, so that neither sections nor front ends wait long for a large one.

use hmm_protocol::{MapEntry, MapFlags, MapOp, Status};

use super::{
    Context,
    entry::{Entry, GRANULE_BYTES, GRANULE_SHIFT, PAGE_SHIFT},
    table::PageTable,
};

/// Granules that are changed while the context's gate is closed.
const GRANULES_OF_A_SLICE: usize = 32;

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
    /// The change that `entry`, which was validated, asks for with `op`; nothing if it answers a page fault.
    pub fn of(entry: &MapEntry, op: MapOp) -> Option<Self> {
        let start = entry.address.get();
        // Validation has shown that it does not wrap.
        let end = start.saturating_add(entry.len.get());
        match op {
            MapOp::Map => Some(Self::Map {
                start,
                end,
                target: entry.target.get(),
                flags: MapFlags(entry.flags),
                huge: u32::from(entry.page_shift) == GRANULE_SHIFT,
            }),
            MapOp::Unmap => Some(Self::Restrict {
                start,
                end,
                keep: MapFlags::default(),
            }),
            MapOp::Protect => Some(Self::Restrict {
                start,
                end,
                keep: MapFlags(entry.flags),
            }),
            MapOp::Resume | MapOp::Fail => None,
        }
    }

    /// First address.
    pub fn start(&self) -> u64 {
        match self {
            Self::Map { start, .. } | Self::Restrict { start, .. } => *start,
        }
    }

    /// Makes a slice of the change to `context`, from address `from` on. When this returns, no access happens any more under
    /// what the slice took away.
    ///
    /// # Errors
    /// `Busy`: there is no memory left for page tables; the slice is mapped in part. `BadContext`: the context was destroyed.
    pub fn make(&self, context: &Context, from: u64) -> Result<Progress, Status> {
        context
            .change(|table| self.slice(table, from))
            .unwrap_or(Err(Status::BadContext))
    }

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
