// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device ends the session, and keeps its contents. The driver adopts them again, and nothing is lost.

use super::beside::{JobsMay, beside_moves_and_jobs};
use super::trial::{Trial, counter};
use crate::cases::support::inject::Faults;
use crate::cases::support::jobs::{Jobs, crc32c};
use crate::cases::support::prelude::*;
use hmm_uapi::JobState;
use hmm_uapi::client::JobRequest;

pub(super) const CASES: &[Case] = &[
    Case::new("loss/session-ends-anon-4k", || ends(Memory::single(PAGES)?)),
    Case::new("loss/session-ends-anon-thp", || ends(Memory::huge(2)?)),
    Case::new("loss/session-ends-while-job-runs", ends_job),
    Case::new("loss/session-ends-again-and-again", again_and_again),
    Case::new("loss/session-ends-without-restart", without_restart),
];

const PAGES: usize = 600;

/// What must not change, since the device answers and is there: time-outs and losses.
fn failures() -> Result<(u64, u64)> {
    Ok((counter("timeouts")?, counter("losses")?))
}

/// Does `then` after the device has ended the session, which the driver must notice.
fn after_the_end(device: &Faults, then: impl FnOnce() -> Result<()>) -> Result<()> {
    let (ended, failed) = (counter("lost_sessions")?, failures()?);
    device.end_session()?;
    then()?;
    ensure!(
        counter("lost_sessions")? == ended + 1,
        "the end of the session was noticed {} times",
        counter("lost_sessions")? - ended
    );
    ensure!(
        failures()? == failed,
        "time-outs and losses were {failed:?} and are {:?}",
        failures()?
    );
    Ok(())
}

/// A CPU reads, and memory moves in both directions.
fn ends(mut memory: Memory) -> Result<()> {
    let device = Faults::of_first_device()?;
    let mover = Mover::open()?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    after_the_end(&device, || memory.check(1))?;
    after_the_end(&device, || mover.all_to_device(memory.range()))?;
    after_the_end(&device, || mover.to_system(memory.range()).map(drop))?;
    memory.check(1)
}

/// Nothing is asked of the device but a job that never ends: the driver notices all the same. The next job works, with what
/// was on the device.
fn ends_job() -> Result<()> {
    let device = Faults::of_first_device()?;
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let sum = u64::from(crc32c(memory.bytes()));
    mover.all_to_device(memory.range())?;
    let list = Memory::single(1)?;
    let id = jobs.begin(&crate::cases::job::endless(&list))?;
    after_the_end(&device, || {
        let report = jobs.wait(id)?;
        ensure!(report.state == JobState::Failed, "{report:x?}");
        Ok(())
    })?;
    let report = jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
    ensure!(report.result == sum, "the device read something else");
    memory.check(1)
}

/// The session ends many times while memory moves and jobs run.
fn again_and_again() -> Result<()> {
    const TIMES: usize = 20;
    let device = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let mut resident = Memory::single(PAGES)?;
    resident.fill(1);
    mover.all_to_device(resident.range())?;
    let mut memory = Memory::single(16)?;
    memory.fill(4);
    let (memory, resident) = (memory, resident);
    let (ended_before, failed) = (counter("lost_sessions")?, failures()?);
    beside_moves_and_jobs(JobsMay::Fail, || {
        // One that ends while the driver is about to adopt its contents is not noticed. A call that succeeds says that the next
        // one may end.
        (0..TIMES).try_for_each(|_| {
            device.end_session()?;
            mover.all_to_device(memory.range())?;
            mover.to_system(memory.range()).map(drop)
        })
    })?;
    ensure!(
        counter("lost_sessions")? > ended_before,
        "no end of a session was noticed"
    );
    ensure!(
        failures()? == failed,
        "time-outs and losses were {failed:?} and are {:?}",
        failures()?
    );
    mover.expect_on_device(resident.range())?;
    memory.check(4)?;
    resident.check(1)
}

/// Where something else starts devices anew that do not answer: this one did.
fn without_restart() -> Result<()> {
    let trial = Trial::new()?;
    let memory = trial.memory(PAGES, 1)?;
    after_the_end(&trial.faults, || memory.check(1))
}
