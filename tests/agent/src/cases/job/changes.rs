// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process changes its address space while jobs work on it: fork, exec, mremap, munmap.

use super::calls::endless;
use crate::cases::support::depth;
use crate::cases::support::gate::Gate;
use crate::cases::support::jobs::{Jobs, expect_done};
use crate::cases::support::prelude::*;
use crate::cases::support::program::Program;
use hmm_uapi::client::{JobId, JobReport, JobRequest};
use hmm_uapi::{JobState, JobStatus};
use rustix::io::Errno;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("job/fork-in-flight-anon-4k", fork_in_flight),
    Case::new("job/child-has-memory-of-its-own-anon-4k", child_has_its_own),
    Case::new(
        "job/writes-to-pages-that-a-child-shares-anon-4k",
        shared_with_child,
    ),
    Case::new("job/exec-in-flight", exec_in_flight),
    Case::new("job/mremap-in-flight-anon-4k", mremap_in_flight),
    Case::new(
        "job/munmap-of-the-middle-in-flight-anon-4k",
        munmap_in_flight,
    ),
];

/// A process forks while jobs write to its memory. The jobs work for the parent, and the child sees a page as it was at some
/// moment.
fn fork_in_flight() -> Result<()> {
    const PAGES: usize = 256;
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let words = (PAGES * PAGE / 8) as u64;
    for round in 0..depth::rounds(12)? {
        let mut memory = Memory::single(PAGES)?;
        memory.bytes_mut().fill(0);
        if round % 2 == 0 {
            mover.all_to_device(memory.range())?;
        }
        let add = JobRequest::atomic_add(memory.range().start, words, 8, 1);
        let ids = (0..6)
            .map(|_| Ok(jobs.begin(&add)?))
            .collect::<Result<Vec<_>>>()?;
        let child = fork(|| {
            let seen = memory.bytes().to_vec();
            for word in seen.chunks_exact(8) {
                let word = u64::from_ne_bytes(word.try_into()?);
                ensure!(word <= 6, "the child sees {word:#x}");
            }
            std::thread::sleep(Duration::from_millis(5));
            // No job of the parent's writes to the child's memory.
            ensure!(
                memory.bytes() == seen,
                "the child's memory changes by itself"
            );
            Ok(())
        })?;
        for id in ids {
            expect_done(jobs.wait(id)?)?;
        }
        child.wait()?;
        for (index, word) in memory.bytes().chunks_exact(8).enumerate() {
            let word = u64::from_ne_bytes(word.try_into()?);
            ensure!(word == 6, "word {index} is {word} in round {round}");
        }
    }
    Ok(())
}

/// A child uses the file that it inherited on its own memory, which has the same addresses.
fn child_has_its_own() -> Result<()> {
    let jobs = Jobs::open()?;
    let mut memory = Memory::single(64)?;
    memory.fill(1);
    jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
    let child = fork(|| {
        jobs.done(&JobRequest::fill(memory.range(), 0))?;
        memory.check_zero(0..64)
    })?;
    child.wait()?;
    memory.check(1)?;
    jobs.done(&JobRequest::fill(memory.range(), 0))?;
    memory.check_zero(0..64)
}

/// A job writes to device pages that a child shares with the process: the child keeps what was there.
fn shared_with_child() -> Result<()> {
    const PAGES: usize = 40;
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    for is_on_device in [false, true] {
        let mut memory = Memory::single(PAGES)?;
        memory.fill(1);
        if is_on_device {
            mover.all_to_device(memory.range())?;
        }
        // The device could write all of it, until it is shared.
        jobs.done(&JobRequest::atomic_add(memory.range().start, 1, 8, 0))?;
        let check = Gate::new()?;
        let child = fork(|| {
            check.wait()?;
            memory.check(1)
        })?;
        jobs.done(&JobRequest::fill(memory.part(5..20), 0))?;
        let first = memory.part(30..31).start;
        jobs.done(&JobRequest::atomic_add(first, (PAGE / 8) as u64, 8, 0))?;
        check.open()?;
        child.wait()?;
        memory.check_pages(0..5, 1)?;
        memory.check_zero(5..20)?;
        memory.check_pages(20..PAGES, 1)?;
    }
    Ok(())
}

/// A process executes another program while a job works on it: the job ends, and the process that waits is told.
fn exec_in_flight() -> Result<()> {
    let jobs = Jobs::open()?;
    let memory = Memory::single(1)?;
    let request = endless(&memory);
    let board = Memory::shared(1)?;
    let (ready, go) = (Gate::new()?, Gate::new()?);
    let (program, id) = std::thread::scope(|scope| -> Result<(Program, JobId)> {
        let runner = scope.spawn(|| {
            Program::run(Path::new("/proc/self/exe"), || {
                board.word(0).store(std::process::id(), Ordering::SeqCst);
                ready.open()?;
                go.wait()
            })
        });
        ready.wait()?;
        let pid = board.word(0).load(Ordering::SeqCst).cast_signed();
        let id = jobs.device.begin_job_for(pid.try_into()?, &request);
        go.open()?;
        let program = runner
            .join()
            .unwrap_or_else(|_| bail!("the thread panicked"))?;
        Ok((program, id?))
    })?;
    expect_lost(&jobs.wait(id)?)?;
    drop(program);
    Ok(())
}

/// Checks that a job ended because its memory has gone: the driver told it, or the device found nothing there.
pub(super) fn expect_lost(report: &JobReport) -> Result<()> {
    let good = match report.status {
        Some(JobStatus::Cancelled) => report.error == Some(Errno::SRCH),
        Some(JobStatus::Unmapped) => report.address != 0,
        _ => false,
    };
    ensure!(
        report.state == JobState::Failed && good,
        "the memory of the job has gone: {report:x?}"
    );
    Ok(())
}

/// A list moves by mremap while it is walked: the walk ends where nothing is any more, and the list is whole at its new place.
fn mremap_in_flight() -> Result<()> {
    const PAGES: usize = 128;
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    for round in 0..depth::rounds(8)? {
        let mut memory = Memory::single(PAGES)?;
        memory.fill(1);
        let request = endless(&memory);
        if round % 2 == 0 {
            mover.all_to_device(memory.range())?;
        }
        let id = jobs.begin(&request)?;
        let running = jobs.device.wait_job(id, Some(Duration::from_millis(3)))?;
        ensure!(running.state == JobState::Running, "{running:?}");
        let start = memory.address() as u64;
        let (old, length) = memory.into_raw();
        // SAFETY: The mapping was the case's own, and nothing refers to it.
        let new = unsafe {
            rustix::mm::mremap(
                old.as_ptr().cast(),
                length,
                length + PAGE,
                rustix::mm::MremapFlags::MAYMOVE,
            )
        }?;
        let new = NonNull::new(new.cast::<u8>()).context("a mapping at 0")?;
        // SAFETY: It was just made by the call, from the mapping that was given up.
        let memory = unsafe { Memory::adopt(new, PAGES + 1) };
        let report = match memory.address() as u64 == start {
            // There was room behind it, so it stays.
            true => jobs.device.cancel_job(id)?,
            false => jobs.wait(id)?,
        };
        ensure!(
            report.state == JobState::Cancelled
                || (report.status == Some(JobStatus::Unmapped)
                    && report.address.wrapping_sub(start) < 16),
            "{report:x?}"
        );
        memory.check_pages(1..PAGES, 1)?;
        jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
    }
    Ok(())
}

/// The middle of a range goes while jobs fill it: what is left has what they wrote, and the jobs name an address of the hole.
fn munmap_in_flight() -> Result<()> {
    const PAGES: usize = 600;
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    for round in 0..depth::rounds(12)? {
        let mut memory = Memory::single(PAGES)?;
        memory.fill(1);
        if round % 2 == 0 {
            mover.all_to_device(memory.range())?;
        }
        let fill = JobRequest::fill(memory.range(), 0);
        let ids = (0..4)
            .map(|_| Ok(jobs.begin(&fill)?))
            .collect::<Result<Vec<_>>>()?;
        let hole = 200 + (round as usize * 37) % 100..400;
        memory.unmap(hole.clone())?;
        for id in ids {
            let report = jobs.wait(id)?;
            let is_in_hole = memory.part(hole.clone()).contains(&report.address);
            ensure!(
                report.state == JobState::Done
                    || (report.status == Some(JobStatus::Unmapped) && is_in_hole),
                "{report:x?}"
            );
        }
        memory.check_zero(0..hole.start)?;
        // A new mapping in the hole is not written to by what was there before.
        ensure!(
            memory.word(0).load(Ordering::SeqCst) == 0,
            "the first word was filled"
        );
    }
    Ok(())
}
