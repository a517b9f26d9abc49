// SPDX-License-Identifier: GPL-2.0-only

//! One batch from the device to system memory.

use super::range::Job;
use crate::sys::{
    migrate::{
        Buffers,
        Migration,
        Select,
        Source, //
    },
    mm::Vma,
    page::Destination, //
};
use core::ops::Range;
use hmm_protocol::Op;
use hmm_uapi::SkipReason;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

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
    for page in 0..migration.len() {
        match migration.source(page) {
            Source::Skipped => job.mark_not_collected(page),
            Source::Hole => job.skip(SkipReason::Hole),
            Source::Page(_) => match Destination::system_for(vma, start + page * PAGE_SIZE) {
                Ok(destination) => migration.set_destination(page, destination),
                Err(_) => job.skip(SkipReason::NoSystemMemory),
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
