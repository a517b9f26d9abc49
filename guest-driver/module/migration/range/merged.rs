// SPDX-License-Identifier: GPL-2.0-only

//! Keeps pages that KSM merged out of migrations.
//!
//! The kernel finds the mappings of such a page by what KSM remembers of it. It can have forgotten
//! that, for example of a process that has exited and whose child still has the page, or of a page
//! that was swapped out while its mapping was told not to be merged any more: swapping it in brings
//! the merged page back. A migration that collects the page through a page table all the same cannot
//! undo that: nothing replaces the migration entry, and a task that touches the page waits for ever. So
//! these pages must not even be collected.

use super::request::Request;
use crate::sys::address_space::locked::MmapLocked;
use core::ops::Range;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// The front of a range: as many pages as are all of one kind.
pub(super) enum PageRun {
    /// None of them is a merged one.
    Plain(Range<usize>),
    /// Merged pages.
    Merged(Range<usize>),
}

/// Looks at `range`, within one mapping. `entries` is scratch space of as many elements as pages.
///
/// # Errors
///
/// `EINVAL`: range or scratch space.
pub(super) fn front(
    request: &Request<'_>,
    guard: &dyn MmapLocked,
    range: Range<usize>,
    entries: &mut [usize],
) -> Result<PageRun> {
    let (mut plain, mut merged) = (None, None);
    request
        .snapshot
        .look_for_merged(guard, range.clone(), entries, |page, is_merged| {
            let first = if is_merged { &mut merged } else { &mut plain };
            first.get_or_insert(range.start + page * PAGE_SIZE);
        })?;
    Ok(match (plain, merged) {
        (_, None) => PageRun::Plain(range),
        (Some(plain), Some(merged)) if plain < merged => PageRun::Plain(plain..merged),
        (plain, Some(merged)) => PageRun::Merged(merged..plain.unwrap_or(range.end)),
    })
}
