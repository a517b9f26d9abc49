// SPDX-License-Identifier: GPL-2.0-only

//! One batch from the device to system memory.

use super::range::Job;
use crate::sys::{
    migrate::{
        Buffers,
        Collected,
        Migration,
        Select,
        Source, //
    },
    mm::Vma,
    page::{
        Destination,
        HUGE_PAGES, //
    }, //
};
use core::ops::Range;
use hmm_protocol::Op;
use hmm_uapi::SkipReason;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// Gives the pages of the huge page at `head`, mapped at `address`, a destination each, as long as
/// there are any. Returns how many got one.
fn split(
    migration: &mut Migration<'_, Collected>,
    vma: &Vma<'_>,
    head: usize,
    address: usize,
) -> usize {
    for page in 0..HUGE_PAGES {
        let Ok(destination) = Destination::system_for(vma, address + page * PAGE_SIZE) else {
            return page;
        };
        if page == 0 {
            migration.set_destination(head, destination);
        } else {
            migration.set_tail_destination(head, page, destination);
        }
    }
    HUGE_PAGES
}

/// Brings the device pages of `range` home, and counts the others, except those that the kernel
/// did not collect.
///
/// # Errors
///
/// `EINVAL`: the kernel refuses the mapping.
pub(super) fn run<'a>(
    job: &mut Job<'a>,
    vma: &'a Vma<'_>,
    range: Range<usize>,
    buffers: &'a mut Buffers,
) -> Result {
    let start = range.start;
    let mut migration = Migration::of_range(vma, range, Select::Device, job.memory, buffers)?;
    let mut index = 0;
    while index < migration.len() {
        let source = migration.source(index);
        let (at, span) = (index, source.pages());
        let address = start + at * PAGE_SIZE;
        index += span;
        match source {
            Source::Skipped => job.mark_not_collected(at),
            Source::Hole | Source::HugeHole => job.skip(SkipReason::Hole, span),
            Source::Page(_) => match Destination::system_for(vma, address) {
                Ok(destination) => migration.set_destination(at, destination),
                Err(_) => job.skip(SkipReason::NoSystemMemory, 1),
            },
            Source::HugePage(_) => match Destination::huge_system_for(vma, address) {
                Ok(destination) => migration.set_destination(at, destination),
                Err(_) => {
                    let given = split(&mut migration, vma, at, address);
                    job.skip(SkipReason::NoSystemMemory, span - given);
                }
            },
        }
    }
    let moved = job.install_after_copy(migration, Op::ToSystem);
    job.link
        .stats()
        .bytes_to_system
        .add((moved * PAGE_SIZE) as u64);
    Ok(())
}
