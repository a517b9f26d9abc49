// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a job touches is mapped by as few page faults as there are blocks, and what the process changes is taken away once.

use crate::cases::support::jobs::Jobs;
use crate::cases::support::prelude::*;
use hmm_uapi::JobStatus;
use hmm_uapi::client::JobRequest;
use std::fs;
use std::path::Path;

pub(super) const CASES: &[Case] = &[
    Case::new("space/faults-are-counted-anon-4k", || counted(false)),
    Case::new("space/faults-are-counted-anon-thp", || counted(true)),
    Case::new("space/read-then-write-anon-4k", read_then_write),
    Case::new("space/changes-are-counted-anon-4k", changes_are_counted),
    Case::new("space/protected-while-mapped-anon-4k", protected),
];

/// Permissions as a probe has them.
const READ: u64 = 1;
const WRITE: u64 = 2;
const ATOMIC: u64 = 4;
const DEVICE: u64 = 8;

/// A counter of the first device.
fn counter(name: &str) -> Result<u64> {
    let file = Path::new("/sys/kernel/debug/hmm0/counters");
    if !file.exists() {
        return Err(skip("this kernel has no debugfs"));
    }
    let text = fs::read_to_string(file)?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .with_context(|| format!("there is no {name} in {text}"))
}

/// A job over some blocks faults once for each, wherever the pages are, and then no more.
fn counted(huge: bool) -> Result<()> {
    const BLOCKS: usize = 3;
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let mut memory = match huge {
        true => Memory::huge(BLOCKS)?,
        false => Memory::anonymous(BLOCKS * HUGE / PAGE)?,
    };
    memory.fill(1);
    let range = memory.range();
    let blocks = (range.end - 1) / HUGE as u64 - range.start / HUGE as u64 + 1;
    for on_device in [false, true] {
        if on_device {
            mover.all_to_device(range.clone())?;
        }
        let before = counter("device_faults")?;
        let report = jobs.done(&JobRequest::crc32c(range.clone(), 0))?;
        ensure!(
            report.faults == blocks && counter("device_faults")? - before == blocks,
            "{blocks} blocks took {} faults, and the driver served {}",
            report.faults,
            counter("device_faults")? - before
        );
        let again = jobs.done(&JobRequest::crc32c(range.clone(), 0))?;
        ensure!(
            again.faults == 0 && again.result == report.result,
            "{again:?}"
        );
        let there = jobs.done(&JobRequest::probe(range.clone(), READ))?;
        ensure!(there.result == memory.pages() as u64, "{there:?}");
        let on = jobs.done(&JobRequest::probe(range.clone(), READ | DEVICE))?;
        let expected = if on_device { memory.pages() } else { 0 };
        ensure!(on.result == expected as u64, "{on:?}");
    }
    memory.check(1)
}

/// New memory that a job reads first is mapped for reading only, and for writing once a job writes. Zeros that all
/// processes share never change.
fn read_then_write() -> Result<()> {
    const PAGES: usize = 64;
    let jobs = Jobs::open()?;
    let memory = Memory::single(PAGES)?;
    let range = memory.range();
    jobs.done(&JobRequest::crc32c(range.clone(), 0))?;
    let probe = |permissions| -> Result<u64> {
        Ok(jobs
            .done(&JobRequest::probe(range.clone(), permissions))?
            .result)
    };
    let (readable, writable) = (probe(READ)?, probe(READ | WRITE)?);
    ensure!(
        (readable, writable) == (PAGES as u64, 0),
        "{readable} pages are readable, and {writable} writable"
    );
    jobs.done(&JobRequest::fill(
        memory.part(0..PAGES / 2),
        0x0101_0101_0101_0101,
    ))?;
    let writable = probe(READ | WRITE)?;
    ensure!(
        writable >= PAGES as u64 / 2 && probe(READ | WRITE | ATOMIC)? == 0,
        "{writable} pages are writable"
    );
    ensure!(
        memory
            .page_bytes(0..PAGES / 2)
            .iter()
            .all(|&byte| byte == 1),
        "not what the job wrote"
    );
    memory.check_zero(PAGES / 2..PAGES)
}

/// The device is asked once for each change of what it may access, and not for any other.
fn changes_are_counted() -> Result<()> {
    const BLOCK: usize = HUGE / PAGE;
    let jobs = Jobs::open()?;
    let mut memory = Memory::single(4 * BLOCK)?;
    memory.fill(1);
    // The block that the job uses is the second at most, so the last has nothing of it.
    jobs.done(&JobRequest::crc32c(memory.part(0..BLOCK), 0))?;
    for (what, pages, expected) in [
        ("what no job touched", 3 * BLOCK..4 * BLOCK, 0),
        ("what a job touched", 1..2, 1),
        ("the same once more", 1..2, 0),
        ("all of the rest", 2..3 * BLOCK, 1),
    ] {
        let before = counter("invalidations")?;
        memory.advise(pages.clone(), rustix::mm::Advice::LinuxDontNeed)?;
        let asked = counter("invalidations")? - before;
        ensure!(
            asked == expected,
            "{what}: {asked} invalidations, and {expected} were expected"
        );
        memory.check_zero(pages)?;
    }
    memory.check_pages(0..1, 1)
}

/// Memory that is protected loses the permission on the device, too, and gets it back.
fn protected() -> Result<()> {
    const PAGES: usize = 32;
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    for on_device in [false, true] {
        if on_device {
            mover.all_to_device(memory.range())?;
        }
        let fill = JobRequest::fill(memory.range(), 0x0202_0202_0202_0202);
        jobs.done(&fill)?;
        memory.protect(0..PAGES, rustix::mm::MprotectFlags::READ)?;
        let start = memory.range().start;
        jobs.fails("read-only memory", &fill, JobStatus::Forbidden, start)?;
        jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
        let both = rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE;
        memory.protect(0..PAGES, both)?;
        jobs.done(&fill)?;
        ensure!(
            memory.bytes().iter().all(|&byte| byte == 2),
            "not what the job wrote"
        );
    }
    Ok(())
}
