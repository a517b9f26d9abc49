// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tasks that use the device while something is done to it.

use crate::cases::support::jobs::{Jobs, crc32c, expect_done};
use crate::cases::support::prelude::*;
use hmm_uapi::JobState;
use hmm_uapi::client::JobRequest;
use std::sync::atomic::{AtomicBool, Ordering};

/// What may become of jobs that run meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum JobsMay {
    /// Each is done.
    NotEnd,
    /// They end with an error, but for the last.
    Fail,
}

/// Does `work` while one task moves memory to and fro, and another runs jobs. What they find is right at each turn.
pub(super) fn beside_moves_and_jobs(
    jobs_may: JobsMay,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers = [
            scope.spawn(|| move_to_and_fro(&stop)),
            scope.spawn(|| run_jobs(&stop, jobs_may)),
        ];
        let worked = work();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            (worker.join()).unwrap_or_else(|_| bail!("a worker panicked"))?;
        }
        worked
    })
}

fn move_to_and_fro(stop: &AtomicBool) -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(2000)?;
    memory.fill(2);
    while !stop.load(Ordering::Relaxed) {
        for direction in [Direction::ToDevice, Direction::ToSystem] {
            mover.call(memory.range(), direction, MigrateFlags::default())?;
        }
        memory.check(2)?;
    }
    Ok(())
}

fn run_jobs(stop: &AtomicBool, may: JobsMay) -> Result<()> {
    let jobs = Jobs::open()?;
    let mut memory = Memory::single(600)?;
    memory.fill(3);
    let expected = u64::from(crc32c(memory.bytes()));
    let request = JobRequest::crc32c(memory.range(), 0);
    loop {
        let is_last = stop.load(Ordering::Relaxed);
        let report = jobs.run(&request)?;
        if is_last || may == JobsMay::NotEnd {
            expect_done(report)?;
        }
        ensure!(
            report.state != JobState::Done || report.result == expected,
            "a job found other bytes"
        );
        if is_last {
            return Ok(());
        }
    }
}
