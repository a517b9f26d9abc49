// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages that the kernel may drop because the process has not written them since. What a job writes to them must stay.

use crate::cases::support::jobs::{Jobs, crc32c};
use crate::cases::support::prelude::*;
use crate::cases::support::swap::Swap;
use hmm_uapi::client::JobRequest;
use rustix::mm::Advice;

pub(super) const CASES: &[Case] = &[
    Case::new("job/writes-to-freed-memory-anon-4k", to_freed),
    Case::new("job/writes-to-freed-memory-anon-thp", to_freed_huge),
    Case::new(
        "job/writes-to-freed-memory-that-moves-anon-4k",
        to_freed_that_moves,
    ),
    Case::new("job/writes-to-memory-that-was-swapped-anon-4k", to_swapped),
];

const PAGES: usize = 256;
const PATTERN: u64 = 0x5a5a_5a5a_5a5a_5a5a;
const SWAP_PAGES: u32 = 4096;

fn is_filled(memory: &Memory, page: usize) -> bool {
    (memory.page_bytes(page..page + 1).iter()).all(|&byte| byte == PATTERN as u8)
}

/// Checks that all pages have what the job wrote.
fn expect_filled(memory: &Memory) -> Result<()> {
    let lost: Vec<_> = (0..memory.pages())
        .filter(|&page| !is_filled(memory, page))
        .collect();
    ensure!(
        lost.is_empty(),
        "{} pages have lost what a job wrote, the first is {}",
        lost.len(),
        lost[0]
    );
    Ok(())
}

/// Has the kernel take pages that nobody has written since they were freed. Otherwise the case would show nothing.
fn expect_taken(mut memory: Memory) -> Result<()> {
    let pages = memory.pages();
    memory.fill(1);
    memory.advise(0..pages, Advice::LinuxFree)?;
    memory.advise(0..pages, Advice::LinuxPageOut)?;
    let taken = (0..pages)
        .filter(|&page| memory.check_zero(page..page + 1).is_ok())
        .count();
    eprintln!("{taken} of {pages} freed pages were taken");
    match taken {
        0 => Err(skip("the kernel took no page that was freed")),
        _ => Ok(()),
    }
}

fn writes_to_freed(mut memory: Memory) -> Result<()> {
    let jobs = Jobs::open()?;
    memory.fill(1);
    memory.advise(0..memory.pages(), Advice::LinuxFree)?;
    jobs.done(&JobRequest::fill(memory.range(), PATTERN))?;
    memory.advise(0..memory.pages(), Advice::LinuxPageOut)?;
    expect_filled(&memory)
}

fn to_freed() -> Result<()> {
    expect_taken(Memory::single(PAGES)?)?;
    writes_to_freed(Memory::single(PAGES)?)
}

fn to_freed_huge() -> Result<()> {
    expect_taken(Memory::huge(1)?)?;
    writes_to_freed(Memory::huge(1)?)
}

/// The pages are on the device while the job writes to them, and migrate back.
fn to_freed_that_moves() -> Result<()> {
    expect_taken(Memory::single(PAGES)?)?;
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    memory.advise(0..PAGES, Advice::LinuxFree)?;
    mover.all_to_device(memory.range())?;
    jobs.done(&JobRequest::fill(memory.range(), PATTERN))?;
    mover.expect_on_device(memory.range())?;
    mover.to_system(memory.range())?;
    memory.advise(0..PAGES, Advice::LinuxPageOut)?;
    expect_filled(&memory)
}

/// A page that was read in from swap space is equal to what is there, until a job writes to it.
fn to_swapped() -> Result<()> {
    let _swap = Swap::new(SWAP_PAGES)?;
    let jobs = Jobs::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let original = crc32c(memory.bytes());
    memory.advise(0..PAGES, Advice::LinuxPageOut)?;
    // Either the CPU reads them in or the device does.
    memory.touch(0..PAGES / 2);
    let report = jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
    ensure!(report.result == u64::from(original), "{report:x?}");
    jobs.done(&JobRequest::fill(memory.range(), PATTERN))?;
    memory.advise(0..PAGES, Advice::LinuxPageOut)?;
    expect_filled(&memory)
}
