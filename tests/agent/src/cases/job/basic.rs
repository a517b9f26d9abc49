// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Each kind of job, on memory of each side.

use crate::cases::support::jobs::{Jobs, blocks, crc32c};
use crate::cases::support::prelude::*;
use hmm_uapi::client::JobRequest;
use std::ops::Range;

pub(super) const CASES: &[Case] = &[
    Case::new("job/fill-anon-4k", fill_single),
    Case::new("job/fill-anon-thp", fill_huge),
    Case::new("job/copy-anon-4k", copy),
    Case::new("job/crc32c-anon-4k", crc),
    Case::new("job/atomic-add-anon-4k", atomic_add),
    Case::new("job/probe-anon-4k", probe),
    Case::new("job/new-memory-anon-4k", new_memory),
    Case::new(
        "job/populates-only-what-it-touches-anon-4k",
        only_what_it_touches,
    ),
];

const PATTERN: u64 = 0x8877_6655_4433_2211;

/// What a fill leaves: byte i has byte i modulo 8 of the pattern.
fn expect_filled(memory: &Memory, bytes: Range<usize>, pattern: u64) -> Result<()> {
    let expected = pattern.to_le_bytes();
    for (index, &byte) in memory.bytes()[bytes.clone()].iter().enumerate() {
        ensure!(
            byte == expected[index % 8],
            "byte {} of the filled: {byte:#x}",
            index
        );
    }
    Ok(())
}

fn fill(mut memory: Memory) -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let bytes = memory.length();
    for is_on_device in [false, true] {
        memory.fill(1);
        if is_on_device {
            mover.all_to_device(memory.range())?;
        }
        let resident = mover.resident()?;
        // A range that begins and ends within words.
        let part = 4099..bytes - 4101;
        let start = memory.address() as u64;
        let request = JobRequest::fill(start + part.start as u64..start + part.end as u64, PATTERN);
        let report = jobs.done(&request)?;
        ensure!(
            report.amount == part.len() as u64 && report.result == 0,
            "{report:?}"
        );
        let expected = blocks(&memory.range());
        ensure!(
            report.faults == expected,
            "{} faults for {expected} blocks",
            report.faults
        );
        if is_on_device {
            mover.expect_on_device(memory.range())?;
            ensure!(
                mover.resident()? == resident,
                "a job on memory of the device moved something"
            );
            // Nothing is mapped anew for what is mapped and has not changed.
            let again = jobs.done(&request)?;
            ensure!(again.faults == 0, "{} faults again", again.faults);
        }
        expect_filled(&memory, part.clone(), PATTERN)?;
        memory.check_pages(0..1, 1)?;
        memory.check_pages(memory.pages() - 1..memory.pages(), 1)?;
    }
    Ok(())
}

fn fill_single() -> Result<()> {
    fill(Memory::single(1500)?)
}

fn fill_huge() -> Result<()> {
    fill(Memory::huge(3)?)
}

fn copy() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let (mut from, mut to) = (Memory::single(700)?, Memory::single(700)?);
    // Each of the two on each side.
    for sides in 0..4 {
        from.fill(sides);
        to.fill(100);
        if sides & 1 != 0 {
            mover.all_to_device(from.range())?;
        }
        if sides & 2 != 0 {
            mover.all_to_device(to.range())?;
        }
        let report = jobs.done(&JobRequest::copy(from.part(1..699), to.part(1..699).start))?;
        ensure!(report.amount == 698 * PAGE as u64, "{report:?}");
        from.check(sides)?;
        to.check_pages(0..1, 100)?;
        to.check_pages(1..699, sides)?;
        to.check_pages(699..700, 100)?;
    }
    Ok(())
}

fn crc() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let mut memory = Memory::single(300)?;
    memory.fill(7);
    let bytes = memory.length();
    let expected = crc32c(memory.bytes());
    let start = memory.address() as u64;
    for is_on_device in [false, true] {
        if is_on_device {
            mover.all_to_device(memory.range())?;
        }
        let report = jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
        ensure!(
            report.faults == blocks(&memory.range()),
            "{} faults",
            report.faults
        );
        ensure!(
            report.result == u64::from(expected) && report.amount == bytes as u64,
            "expected {expected:#x}: {report:x?}"
        );
        // The same in two jobs.
        let cut = start + 12345;
        let first = jobs.done(&JobRequest::crc32c(start..cut, 0))?;
        let first = u32::try_from(first.result)?;
        let second = jobs.done(&JobRequest::crc32c(cut..start + bytes as u64, first))?;
        ensure!(
            second.result == u64::from(expected),
            "expected {expected:#x}: {second:x?}"
        );
    }
    mover.expect_on_device(memory.range())?;
    memory.check(7)
}

fn atomic_add() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    for (is_on_device, width) in [(false, 8), (true, 8), (false, 4), (true, 4)] {
        let memory = Memory::single(5)?;
        let words = memory.length() as u64 / width;
        for index in 0..words {
            memory
                .word((index * width) as usize)
                .store(index as u32, std::sync::atomic::Ordering::Relaxed);
        }
        if is_on_device {
            mover.all_to_device(memory.range())?;
        }
        // The sum goes beyond a word, and not into the next.
        let more = u64::MAX - 1;
        let first = memory.address() as u64 + width;
        let report = jobs.done(&JobRequest::atomic_add(first, words - 1, width, more))?;
        ensure!(
            report.result == 1 && report.amount == words - 1,
            "{report:?}"
        );
        // Each page of system memory becomes the device's own for itself.
        let faults = match is_on_device {
            true => blocks(&memory.range()),
            false => memory.pages() as u64,
        };
        ensure!(
            report.faults == faults,
            "{} faults, and {faults} expected",
            report.faults
        );
        for (index, word) in memory.bytes().chunks_exact(width as usize).enumerate() {
            let index = index as u64;
            let expected = match index {
                0 => 0,
                index => index.wrapping_add(more),
            };
            ensure!(
                word == &expected.to_le_bytes()[..width as usize],
                "word {index} of {width} bytes is {word:x?}, expected {expected:#x}"
            );
        }
    }
    Ok(())
}

/// A probe tells what is mapped, and maps nothing.
fn probe() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let mut memory = Memory::single(600)?;
    memory.fill(1);
    let mapped = |permissions| -> Result<u64> {
        let report = jobs.done(&JobRequest::probe(memory.range(), permissions))?;
        ensure!(report.faults == 0, "a probe has no fault: {report:?}");
        Ok(report.result)
    };
    ensure!(
        mapped(0)? == 0 && mapped(1)? == 0,
        "nothing was touched yet"
    );
    jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
    ensure!(mapped(1)? == 600, "{} pages can be read", mapped(1)?);
    ensure!(mapped(8)? == 0, "{} pages are on the device", mapped(8)?);
    // A move takes all of it away, and what the device touches then is device memory.
    mover.all_to_device(memory.range())?;
    jobs.done(&JobRequest::fill(memory.range(), PATTERN))?;
    ensure!(
        mapped(1 | 2 | 8)? == 600,
        "{} pages of the device can be written",
        mapped(1 | 2 | 8)?
    );
    expect_filled(&memory, 0..memory.length(), PATTERN)?;
    ensure!(
        mapped(1)? == 0,
        "{} pages are still mapped, and the CPU has taken them back",
        mapped(1)?
    );
    Ok(())
}

/// The device is the first to touch memory.
fn new_memory() -> Result<()> {
    let jobs = Jobs::open()?;
    let memory = Memory::single(700)?;
    let report = jobs.done(&JobRequest::crc32c(memory.part(0..300), 0))?;
    ensure!(
        report.faults == blocks(&memory.part(0..300)),
        "{} faults",
        report.faults
    );
    let zeroes = crc32c(&vec![0; 300 * PAGE]);
    ensure!(report.result == u64::from(zeroes), "{report:x?}");
    memory.check_zero(0..300)?;
    jobs.done(&JobRequest::fill(memory.part(200..500), PATTERN))?;
    memory.check_zero(0..200)?;
    expect_filled(&memory, 200 * PAGE..500 * PAGE, PATTERN)?;
    memory.check_zero(500..700)
}

/// The kernel faults in all of a range without a page table of which any page is wanted, so the driver must not ask for more
/// than the job does.
fn only_what_it_touches() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let memory = Memory::table()?;
    jobs.done(&JobRequest::fill(memory.part(7..9), PATTERN))?;
    let found = mover.device.residency(Process::Caller, memory.range())?;
    ensure!(
        found.system_pages + found.device_pages == 2,
        "a job touched 2 pages, and there are {found:?}"
    );
    expect_filled(&memory, 7 * PAGE..9 * PAGE, PATTERN)
}
