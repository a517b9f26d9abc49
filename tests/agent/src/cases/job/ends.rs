// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Processes that end while jobs work on their memory.

use super::calls::endless;
use super::changes::expect_lost;
use crate::cases::support::depth;
use crate::cases::support::gate::Gate;
use crate::cases::support::jobs::Jobs;
use crate::cases::support::prelude::*;
use hmm_uapi::client::JobRequest;
use rustix::process::Signal;

pub(super) const CASES: &[Case] = &[
    Case::new("job/process-killed-in-a-job-anon-4k", killed),
    Case::new("job/process-exits-in-a-job-anon-4k", exits),
    Case::new("job/memory-of-a-process-that-ends", of_the_dead),
];

const PAGES: usize = 300;

/// A process that is killed leaves no context, no pin and no page behind.
fn killed() -> Result<()> {
    let mover = Mover::open()?;
    let resident = mover.resident()?;
    for round in 0..depth::rounds(12)? {
        let ready = Gate::new()?;
        let child = fork(|| {
            let (jobs, mover) = (Jobs::open()?, Mover::open()?);
            let mut memory = Memory::single(PAGES)?;
            memory.fill(1);
            if round % 2 == 0 {
                mover.all_to_device(memory.range())?;
            }
            let list = Memory::single(1)?;
            jobs.begin(&endless(&list))?;
            let fill = JobRequest::fill(memory.range(), 2);
            for _ in 0..4 {
                jobs.begin(&fill)?;
            }
            ready.open()?;
            loop {
                jobs.run(&fill)?;
            }
        })?;
        ready.wait()?;
        std::thread::sleep(std::time::Duration::from_millis(u64::from(round % 7)));
        child.signal(Signal::KILL)?;
        child.wait_for_signal(Signal::KILL)?;
    }
    expect_nothing_left(&mover, resident)
}

/// A process that ends by itself, with jobs under way.
fn exits() -> Result<()> {
    let mover = Mover::open()?;
    let resident = mover.resident()?;
    for round in 0..depth::rounds(12)? {
        let child = fork(|| {
            let (jobs, mover) = (Jobs::open()?, Mover::open()?);
            let mut memory = Memory::single(PAGES)?;
            memory.fill(1);
            if round % 2 == 0 {
                mover.all_to_device(memory.range())?;
            }
            jobs.begin(&endless(&Memory::single(1)?))?;
            jobs.begin(&JobRequest::fill(memory.range(), 2))?;
            Ok(())
        })?;
        child.wait()?;
    }
    expect_nothing_left(&mover, resident)
}

/// All device memory of the processes is free again, and the device still works.
fn expect_nothing_left(mover: &Mover, resident: u64) -> Result<()> {
    mover.wait_for_resident(resident)?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    Jobs::open()?.done(&JobRequest::fill(memory.range(), 0))?;
    memory.check_zero(0..PAGES)
}

/// The process whose memory a job works on ends; the process that began the job is told.
fn of_the_dead() -> Result<()> {
    let jobs = Jobs::open()?;
    for _ in 0..depth::rounds(8)? {
        let memory = Memory::single(1)?;
        let request = endless(&memory);
        let (ready, end) = (Gate::new()?, Gate::new()?);
        let child = fork(|| {
            ready.open()?;
            end.wait()
        })?;
        ready.wait()?;
        let id = jobs
            .device
            .begin_job_for(child.id()?.try_into()?, &request)?;
        end.open()?;
        child.wait()?;
        expect_lost(&jobs.wait(id)?)?;
    }
    Ok(())
}
