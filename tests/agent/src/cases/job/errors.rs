// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs that come to an address that they cannot use: each ends with an error that names the first.

use crate::cases::support::jobs::Jobs;
use crate::cases::support::prelude::*;
use hmm_uapi::JobStatus;
use hmm_uapi::client::JobRequest;
use rustix::mm::MprotectFlags;
use std::sync::atomic::Ordering;

pub(super) const CASES: &[Case] = &[
    Case::new("job/unmapped-names-the-address", unmapped),
    Case::new("job/forbidden-names-the-address", forbidden),
    Case::new("job/no-fault-names-the-address", no_fault),
    Case::new("job/walk-that-leaves-its-memory", wild_walk),
    Case::new("job/walk-without-an-end", cyclic_walk),
];

const PAGES: usize = 64;

fn unmapped() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    for is_on_device in [false, true] {
        let mut memory = Memory::single(PAGES)?;
        memory.fill(1);
        if is_on_device {
            mover.all_to_device(memory.range())?;
        }
        memory.unmap(40..50)?;
        let hole = memory.part(40..41).start;
        let start = memory.part(10..11).start + 24;
        let end = memory.range().end;
        let report = jobs.fails(
            "a fill into a hole",
            &JobRequest::fill(start..end, 0),
            JobStatus::Unmapped,
            hole,
        )?;
        ensure!(
            report.amount == hole - start,
            "{} bytes before the hole, and {} were filled",
            hole - start,
            report.amount
        );
        memory.check_pages(50..PAGES, 1)?;
        memory.check_zero(11..40)?;
        jobs.fails(
            "a CRC of a hole",
            &JobRequest::crc32c(hole..end, 0),
            JobStatus::Unmapped,
            hole,
        )?;
        jobs.fails(
            "a copy to a hole",
            &JobRequest::copy(memory.part(0..10), hole),
            JobStatus::Unmapped,
            hole,
        )?;
        jobs.fails(
            "a copy from a hole",
            &JobRequest::copy(memory.part(40..50), memory.part(0..10).start),
            JobStatus::Unmapped,
            hole,
        )?;
        jobs.fails(
            "an addition in a hole",
            &JobRequest::atomic_add(hole + 8, 4, 8, 1),
            JobStatus::Unmapped,
            hole + 8,
        )?;
        // Memory that the device has used goes, and with it what the device had mapped of it.
        jobs.done(&JobRequest::fill(memory.part(50..PAGES), 0))?;
        memory.unmap(50..PAGES)?;
        jobs.fails(
            "a fill of memory that was freed",
            &JobRequest::fill(memory.part(50..PAGES), 0),
            JobStatus::Unmapped,
            memory.part(50..51).start,
        )?;
    }
    // Nothing is ever at these addresses.
    for address in [8, (1 << 47) + 4096, (1 << 56) + 4096, (1 << 57) - 8] {
        jobs.fails(
            "a fill where no process has memory",
            &JobRequest::fill(address..address + 8, 0),
            JobStatus::Unmapped,
            address,
        )?;
    }
    Ok(())
}

fn forbidden() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    for is_on_device in [false, true] {
        let mut memory = Memory::single(PAGES)?;
        memory.fill(1);
        if is_on_device {
            mover.all_to_device(memory.range())?;
        }
        // The device may write all of it, until the process changes its mind.
        jobs.done(&JobRequest::fill(memory.part(0..PAGES), 0))?;
        memory.protect(30..40, MprotectFlags::READ)?;
        let wall = memory.part(30..31).start;
        let report = jobs.fails(
            "a fill of memory that is read only",
            &JobRequest::fill(memory.range(), 0x0101_0101_0101_0101),
            JobStatus::Forbidden,
            wall,
        )?;
        ensure!(report.amount == 30 * PAGE as u64, "{report:?}");
        memory.check_zero(30..PAGES)?;
        jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
        jobs.fails(
            "an addition in memory that is read only",
            &JobRequest::atomic_add(wall, 1, 8, 1),
            JobStatus::Forbidden,
            wall,
        )?;
        memory.protect(30..40, MprotectFlags::empty())?;
        jobs.fails(
            "a CRC of memory without access",
            &JobRequest::crc32c(memory.range(), 0),
            JobStatus::Forbidden,
            wall,
        )?;
        memory.protect(30..40, MprotectFlags::READ | MprotectFlags::WRITE)?;
        jobs.done(&JobRequest::fill(memory.range(), 0))?;
        memory.check_zero(0..PAGES)?;
    }
    Ok(())
}

/// A job that may not fault ends where the device has nothing mapped, and the driver maps nothing for it.
fn no_fault() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let mut memory = Memory::single(1024)?;
    memory.fill(1);
    let start = memory.range().start;
    let crc = JobRequest::crc32c(memory.range(), 0).without_faults();
    for _ in 0..2 {
        let report = jobs.fails("nothing is mapped", &crc, JobStatus::Unmapped, start)?;
        ensure!(report.faults == 0 && report.amount == 0, "{report:?}");
    }
    jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
    jobs.done(&crc)?;
    // What moves is taken away.
    mover.all_to_device(memory.part(512..1024))?;
    let report = jobs.run(&crc)?;
    ensure!(
        report.status == Some(JobStatus::Unmapped)
            && memory.range().contains(&report.address)
            && report.address <= memory.part(512..513).start,
        "{report:x?}"
    );
    memory.check(1)
}

/// A pointer that leads nowhere.
fn wild_walk() -> Result<()> {
    let jobs = Jobs::open()?;
    let memory = Memory::single(1)?;
    let start = memory.address() as u64;
    let put = |offset: usize, value: u64| {
        for (index, word) in [value as u32, (value >> 32) as u32].into_iter().enumerate() {
            memory
                .word(offset + 4 * index)
                .store(word, Ordering::SeqCst);
        }
    };
    for (wild, status) in [
        (8, JobStatus::Unmapped),
        (1 << 50, JobStatus::Unmapped),
        // Beyond what a context has.
        (u64::MAX - 15, JobStatus::BadAddress),
        (1 << 63, JobStatus::BadAddress),
    ] {
        put(0, start + 64);
        put(8, 1);
        put(64, wild);
        put(72, 2);
        let report = jobs.run(&JobRequest::walk(start, 0, 8, 100, None))?;
        ensure!(
            report.status == Some(status) && report.amount == 2,
            "a pointer to {wild:#x}: {report:x?}"
        );
        // Which of the node's two words is read first is the device's affair.
        ensure!(
            report.address.wrapping_sub(wild) < 16,
            "a pointer to {wild:#x}: {report:x?}"
        );
    }
    Ok(())
}

/// A list that comes back to itself ends at the limit of nodes.
fn cyclic_walk() -> Result<()> {
    let jobs = Jobs::open()?;
    let memory = Memory::single(1)?;
    let start = memory.address() as u64;
    for (node, next) in [(0, start + 32), (32, start)] {
        for (index, word) in [next as u32, (next >> 32) as u32, 3, 0]
            .into_iter()
            .enumerate()
        {
            memory.word(node + 4 * index).store(word, Ordering::SeqCst);
        }
    }
    let report = jobs.run(&JobRequest::walk(start, 0, 8, 1001, Some(1)))?;
    ensure!(
        report.status == Some(JobStatus::Limit) && report.amount == 1001,
        "{report:?}"
    );
    let values = (
        memory.word(8).load(Ordering::SeqCst),
        memory.word(40).load(Ordering::SeqCst),
    );
    ensure!(values == (504, 503), "{values:?}");
    Ok(())
}
