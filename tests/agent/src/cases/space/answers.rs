// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Answers about mappings, jobs and their ends that come late, never, or make no sense. The process waits for a bounded time,
//! and what it has is never wrong.

use crate::cases::support::driver::Reloaded;
use crate::cases::support::inject::Faults;
use crate::cases::support::jobs::Jobs;
use crate::cases::support::prelude::*;
use hmm_uapi::JobState;
use hmm_uapi::client::JobRequest;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::new("space/late-answer-to-unmap-anon-4k", late),
    Case::new("space/lost-answer-to-unmap-anon-4k", || {
        unmap_with(json!({ "action": "drop", "queue": "mmu", "count": 1 }))
    }),
    Case::new("space/wrong-cookie-for-unmap-anon-4k", || {
        unmap_with(json!({ "action": "cookie", "queue": "mmu", "count": 1 }))
    }),
    Case::new("space/wrong-length-for-unmap-anon-4k", || {
        unmap_with(json!({ "action": "shorten", "length": 5, "queue": "mmu", "count": 1 }))
    }),
    Case::new("space/refused-unmap-anon-4k", || {
        unmap_with(json!({ "action": "fail", "on": "batch", "queue": "mmu", "count": 1 }))
    }),
    Case::new("space/stalled-mmu-queue-anon-4k", || {
        unmap_with(json!({ "action": "stall", "queue": "mmu" }))
    }),
    Case::new("space/refused-map-anon-4k", refused_map),
    Case::new("space/lost-answer-to-job-anon-4k", || {
        job_with(json!({ "action": "drop", "queue": "job", "count": 1 }))
    }),
    Case::new("space/wrong-cookie-for-job-anon-4k", || {
        job_with(json!({ "action": "cookie", "queue": "job", "count": 1 }))
    }),
    Case::new("space/lost-end-of-job-anon-4k", lost_end),
];

const PAGES: usize = 512;

/// A driver that loses patience after two seconds, and memory of which one half is on the device.
struct Trial {
    jobs: Jobs,
    memory: Memory,
    faults: Faults,
    // Loads the driver anew when all else is closed.
    _driver: Reloaded,
}

impl Trial {
    fn new() -> Result<Self> {
        let driver = Reloaded::with("timeout_ms=2000")?;
        let faults = Faults::of_first_device()?;
        let jobs = Jobs::open()?;
        let mut memory = Memory::single(PAGES)?;
        memory.fill(1);
        Mover::open()?.all_to_device(memory.part(PAGES / 2..PAGES))?;
        Ok(Self {
            jobs,
            memory,
            faults,
            _driver: driver,
        })
    }

    /// Jobs work, and nothing was lost of `pages`.
    fn afterwards(self, pages: std::ops::Range<usize>) -> Result<()> {
        ensure!(self.faults.fired()? > 0, "the device did nothing wrong");
        self.faults.clear()?;
        let range = self.memory.part(pages.clone());
        self.jobs.done(&JobRequest::crc32c(range, 0))?;
        self.memory.check_pages(pages, 1)
    }
}

/// A device that takes its time keeps a munmap waiting, and no longer.
fn late() -> Result<()> {
    let trial = Trial::new()?;
    trial
        .jobs
        .done(&JobRequest::crc32c(trial.memory.range(), 0))?;
    trial
        .faults
        .add(json!({ "action": "delay", "queue": "mmu", "microseconds": 400_000, "count": 1 }))?;
    let begin = Instant::now();
    trial.memory.unmap(0..16)?;
    ensure!(
        begin.elapsed() >= Duration::from_millis(400),
        "the page was unmapped before the device gave it back"
    );
    trial.afterwards(16..PAGES)
}

/// The device does not answer an unmap as it should. It is started anew; jobs that ran are ended by that, memory is as it was, and
/// jobs work again.
fn unmap_with(fault: Value) -> Result<()> {
    let trial = Trial::new()?;
    // A job that never ends: its node points to itself.
    let mut node = Memory::single(1)?;
    let start = node.range().start;
    node.bytes_mut()[..8].copy_from_slice(&start.to_ne_bytes());
    let id = trial
        .jobs
        .begin(&JobRequest::walk(start, 0, 8, u64::MAX, None))?;
    trial
        .jobs
        .done(&JobRequest::crc32c(trial.memory.range(), 0))?;
    // A stall fires at no batch in particular.
    let is_stall = fault["action"] == "stall";
    trial.faults.add(fault)?;
    let begin = Instant::now();
    trial.memory.unmap(0..16)?;
    ensure!(
        begin.elapsed() < Duration::from_secs(60),
        "munmap took {:?}",
        begin.elapsed()
    );
    let fired = trial.faults.fired()?;
    trial.faults.clear()?;
    let report = trial.jobs.wait(id)?;
    ensure!(
        (fired > 0 || is_stall) && report.state == JobState::Failed,
        "a job outlived a restart of the device: {report:?}"
    );
    trial
        .jobs
        .done(&JobRequest::crc32c(trial.memory.part(16..PAGES), 0))?;
    trial.memory.check_pages(16..PAGES, 1)
}

/// The device refuses to map: the job ends with an error, and the next one works.
fn refused_map() -> Result<()> {
    let trial = Trial::new()?;
    trial
        .faults
        .add(json!({ "action": "fail", "on": "batch", "queue": "mmu", "count": 1 }))?;
    let report = trial
        .jobs
        .run(&JobRequest::crc32c(trial.memory.range(), 0))?;
    ensure!(
        report.state == JobState::Failed && report.address == trial.memory.range().start,
        "{report:x?}"
    );
    trial.afterwards(0..PAGES)
}

/// The device does not answer as it should when it is given a job.
fn job_with(fault: Value) -> Result<()> {
    let trial = Trial::new()?;
    let request = JobRequest::crc32c(trial.memory.range(), 0);
    trial.faults.add(fault)?;
    let begun = trial.jobs.begin(&request);
    ensure!(begun.is_err(), "the job was begun: {begun:?}");
    trial.afterwards(0..PAGES)
}

/// The end of a job is never reported. It ends when it is cancelled, a while later.
fn lost_end() -> Result<()> {
    let trial = Trial::new()?;
    trial
        .faults
        .add(json!({ "action": "drop", "on": "report", "op": "job-end", "count": 1 }))?;
    let id = trial
        .jobs
        .begin(&JobRequest::crc32c(trial.memory.range(), 0))?;
    let report = trial
        .jobs
        .device
        .wait_job(id, Some(Duration::from_secs(1)))?;
    ensure!(report.state == JobState::Running, "{report:?}");
    let report = trial.jobs.device.cancel_job(id)?;
    ensure!(report.state == JobState::Cancelled, "{report:?}");
    trial.afterwards(0..PAGES)
}
