// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Addresses that jobs have used get other memory: what a job finds there is what the process has there now.

use crate::cases::support::depth;
use crate::cases::support::jobs::{Jobs, crc32c};
use crate::cases::support::prelude::*;
use hmm_uapi::JobStatus;
use hmm_uapi::client::JobRequest;
use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use std::ptr::NonNull;

pub(super) const CASES: &[Case] = &[
    Case::new("job/address-used-again-anon-4k", || {
        used_again(Memory::single(PAGES)?)
    }),
    Case::new("job/address-used-again-anon-thp", || {
        used_again(Memory::huge(2)?)
    }),
    Case::new("job/middle-moves-by-mremap-anon-4k", || {
        middle_moves(Memory::single(PAGES)?, MremapFlags::empty())
    }),
    Case::new("job/middle-moves-by-mremap-anon-thp", || {
        middle_moves(Memory::huge(2)?, MremapFlags::empty())
    }),
    Case::new("job/middle-moves-and-stays-mapped-anon-4k", || {
        middle_moves(Memory::single(PAGES)?, MremapFlags::DONTUNMAP)
    }),
    Case::new("job/advice-on-split-mappings-anon-4k", split_mappings),
    Case::new("job/advice-on-a-vast-range-anon-4k", vast_range),
];

const PAGES: usize = 1024;

fn sum(jobs: &Jobs, memory: &Memory) -> Result<u64> {
    Ok(jobs.done(&JobRequest::crc32c(memory.range(), 0))?.result)
}

/// Maps new memory in the place of pages of `memory`.
fn map_over(memory: &Memory, pages: std::ops::Range<usize>) -> Result<()> {
    // SAFETY: The range belongs to `memory`, and there is no reference to its bytes.
    unsafe {
        rustix::mm::mmap_anonymous(
            memory.at(pages.start * PAGE).as_ptr().cast(),
            pages.len() * PAGE,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::FIXED,
        )
    }
    .context("cannot map over the memory")?;
    Ok(())
}

/// An allocator gives memory back and gets the same addresses again: with a hole between, and at once.
fn used_again(mut memory: Memory) -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let pages = memory.pages();
    for round in 0..depth::rounds(8)? {
        let seed = u64::from(round) + 1;
        memory.fill(seed);
        let expected = u64::from(crc32c(memory.bytes()));
        if round % 2 == 1 {
            mover.to_device(memory.range())?;
        }
        let found = sum(&jobs, &memory)?;
        ensure!(
            found == expected,
            "round {round}: the device read {found:#x}"
        );
        jobs.done(&JobRequest::fill(memory.part(0..pages / 2), 0))?;
        memory.check_zero(0..pages / 2)?;
        memory.check_pages(pages / 2..pages, seed)?;
        if round % 4 < 2 {
            memory.unmap(0..pages)?;
            jobs.fails(
                "a read of memory that was given back",
                &JobRequest::crc32c(memory.range(), 0),
                JobStatus::Unmapped,
                memory.range().start,
            )?;
        }
        map_over(&memory, 0..pages)?;
        // The device is the first to touch it.
        jobs.done(&JobRequest::atomic_add(
            memory.range().start,
            (pages * PAGE / 8) as u64,
            8,
            0,
        ))?;
        memory.check_zero(0..pages)?;
    }
    Ok(())
}

/// The middle of memory that the device uses goes elsewhere, wherever its pages are.
fn middle_moves(memory: Memory, flags: MremapFlags) -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let middle = 100..700;
    let mut memory = memory;
    for is_on_device in [false, true] {
        memory.fill(1);
        if is_on_device {
            mover.all_to_device(memory.range())?;
        }
        let before = sum(&jobs, &memory)?;
        let length = middle.len() * PAGE;
        // SAFETY: The pages belong to `memory`, nothing refers to their bytes, and the place is mapped again below.
        let moved = unsafe {
            rustix::mm::mremap(
                memory.at(middle.start * PAGE).as_ptr().cast(),
                length,
                length,
                MremapFlags::MAYMOVE | flags,
            )
        };
        let moved = match moved {
            // Without a reason to move, the kernel leaves it where it is.
            Ok(moved) if moved.addr() == memory.address() + middle.start * PAGE => {
                elsewhere(&memory, middle.clone())?
            }
            moved => NonNull::new(moved.context("mremap")?.cast()).context("a mapping at 0")?,
        };
        // SAFETY: `mremap` has just made this mapping.
        let moved = unsafe { Memory::adopt(moved, middle.len()) };
        let mut expected = Memory::single(memory.pages())?;
        expected.fill(1);
        let part = u64::from(crc32c(expected.page_bytes(middle.clone())));
        ensure!(
            sum(&jobs, &moved)? == part,
            "the device read something else"
        );
        jobs.done(&JobRequest::fill(moved.range(), 0))?;
        moved.check_zero(0..moved.pages())?;
        let hole = memory.part(middle.clone());
        match flags.contains(MremapFlags::DONTUNMAP) {
            true => {
                jobs.done(&JobRequest::crc32c(hole, 0))?;
                memory.check_zero(middle.clone())?;
            }
            false => {
                jobs.fails(
                    "a read of what has moved away",
                    &JobRequest::crc32c(memory.range(), 0),
                    JobStatus::Unmapped,
                    hole.start,
                )?;
            }
        }
        map_over(&memory, middle.clone())?;
        memory.fill_pages(middle.clone(), 1);
        ensure!(
            sum(&jobs, &memory)? == before,
            "the device read something else"
        );
        memory.check(1)?;
    }
    Ok(())
}

/// Moves pages to a place that the kernel does not choose.
fn elsewhere(memory: &Memory, pages: std::ops::Range<usize>) -> Result<NonNull<u8>> {
    let length = pages.len() * PAGE;
    let (target, _) = Memory::single(pages.len())?.into_raw();
    // SAFETY: The pages belong to `memory`, nothing refers to their bytes, and the target's owner was just given up.
    let moved = unsafe {
        rustix::mm::mremap_fixed(
            memory.at(pages.start * PAGE).as_ptr().cast(),
            length,
            length,
            MremapFlags::MAYMOVE,
            target.as_ptr().cast(),
        )
    };
    NonNull::new(moved.context("mremap")?.cast()).context("a mapping at 0")
}

/// Advice holds for addresses: what the process does to mappings between leaves it as it is, and what goes takes it along.
fn split_mappings() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    jobs.move_at_touch(memory.range())?;
    // Five mappings now, of which one cannot be written.
    memory.protect(100..200, MprotectFlags::READ)?;
    memory.advise(300..400, rustix::mm::Advice::LinuxDontFork)?;
    let expected = u64::from(crc32c(memory.bytes()));
    ensure!(
        sum(&jobs, &memory)? == expected,
        "the device read something else"
    );
    mover.expect_on_device(memory.range())?;
    memory.unmap(500..600)?;
    map_over(&memory, 500..600)?;
    memory.fill_pages(500..600, 1);
    mover.to_system(memory.range())?;
    ensure!(
        sum(&jobs, &memory)? == expected,
        "the device read something else"
    );
    // The new memory has no advice.
    mover.expect_in_system(memory.part(500..600))?;
    mover.expect_on_device(memory.part(0..500))?;
    mover.expect_on_device(memory.part(600..PAGES))?;
    memory.protect(100..200, MprotectFlags::READ | MprotectFlags::WRITE)?;
    memory.check(1)
}

/// Advice on 16 TiB of which little is touched: a list with one node in each of some blocks moves to the device, and nothing else.
fn vast_range() -> Result<()> {
    const NODES: usize = 48;
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let memory = Memory::reserved((16 << 40) / PAGE)?;
    let step = memory.pages() / NODES;
    jobs.move_at_touch(memory.range())?;
    let node = |index: usize| memory.part(index * step..index * step + 1).start;
    for index in 0..NODES {
        let next = match index + 1 {
            NODES => 0,
            next => node(next),
        };
        let offset = index * step * PAGE;
        for (place, half) in [(0, next as u32), (4, (next >> 32) as u32), (8, 1)] {
            (memory.word(offset + place)).store(half, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let report = jobs.done(&JobRequest::walk(node(0), 0, 8, NODES as u64, None))?;
    ensure!(
        report.result == NODES as u64 && report.faults == NODES as u64,
        "{report:x?}"
    );
    // The page of the node, and nothing beside it in the block.
    for index in 0..NODES {
        let page = index * step;
        let block = memory.part(page..page + HUGE / PAGE);
        mover.expect_on_device(memory.part(page..page + 1))?;
        mover.expect_residency(block, 0, 1)?;
    }
    Ok(())
}
