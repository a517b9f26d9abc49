// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices that go while jobs run, and many contexts at once.

use crate::cases::support::depth;
use crate::cases::support::driver;
use crate::cases::support::jobs::Jobs;
use crate::cases::support::prelude::*;
use hmm_uapi::JobState;
use hmm_uapi::client::{JobId, JobRequest};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("space/unbind-while-jobs-run-anon-4k", unbind),
    Case::new("space/a-thousand-contexts-anon-4k", many),
    Case::new("space/unmap-while-jobs-fault-anon-4k", unmap_and_fault),
];

/// Begins a walk over a list of one node, which is its own successor, in the first page of `memory`.
fn endless(jobs: &Jobs, memory: &mut Memory) -> Result<JobId> {
    let start = memory.range().start;
    memory.bytes_mut()[..8].copy_from_slice(&start.to_ne_bytes());
    Ok(jobs.begin(&JobRequest::walk(start, 0, 8, u64::MAX, None))?)
}

/// The driver leaves the device while jobs run: they end, memory comes back, and the next driver finds a device that works.
fn unbind() -> Result<()> {
    let mut memory = Memory::single(256)?;
    memory.fill(1);
    for _ in 0..depth::rounds(4)? {
        let devices = driver::bound_devices()?;
        let first = devices.first().context("no device is bound")?.clone();
        let jobs = Jobs::open()?;
        Mover::open()?.all_to_device(memory.range())?;
        let mut node = Memory::single(1)?;
        let ids = (0..4)
            .map(|_| endless(&jobs, &mut node))
            .collect::<Result<Vec<_>>>()?;
        let fill = jobs.begin(&JobRequest::crc32c(memory.range(), 0))?;
        driver::unbind(&first)?;
        for id in ids {
            let report = jobs.wait(id)?;
            ensure!(report.state == JobState::Failed, "{report:?}");
        }
        jobs.wait(fill)?;
        memory.check(1)?;
        drop(jobs);
        driver::bind(&first, devices.len())?;
        let jobs = Jobs::open()?;
        jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
    }
    memory.check(1)
}

/// As many contexts as the device must have at least, on the memory of one process. A change reaches each that knows the page.
fn many() -> Result<()> {
    const CONTEXTS: usize = 1024;
    let limit = rustix::process::Rlimit {
        current: Some(4 * CONTEXTS as u64),
        maximum: Some(4 * CONTEXTS as u64),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
    let mut memory = Memory::single(16)?;
    memory.fill(1);
    let request = JobRequest::crc32c(memory.range(), 0);
    let mut all = Vec::new();
    let mut results = std::collections::BTreeSet::new();
    for _ in 0..CONTEXTS {
        let jobs = Jobs::open()?;
        results.insert(jobs.done(&request)?.result);
        all.push(jobs);
    }
    ensure!(
        results.len() == 1,
        "{} results of the same bytes",
        results.len()
    );
    memory.fill(2);
    Mover::open()?.all_to_device(memory.range())?;
    let now: std::collections::BTreeSet<u64> = all
        .iter()
        .map(|jobs| Ok(jobs.done(&request)?.result))
        .collect::<Result<_>>()?;
    ensure!(
        now.len() == 1 && now != results,
        "some contexts still see what was there before"
    );
    // What is closed makes room for others.
    all.truncate(CONTEXTS / 2);
    for _ in 0..CONTEXTS / 4 {
        let jobs = Jobs::open()?;
        jobs.done(&request)?;
        all.push(jobs);
    }
    drop(all);
    memory.check(2)
}

/// Pages go and come while jobs fault on them: each job ends, and names an address of its range if it does not end well.
fn unmap_and_fault() -> Result<()> {
    const PAGES: usize = 128;
    let jobs = Jobs::open()?;
    for round in 0..depth::rounds(30)? {
        let mut memory = Memory::single(PAGES)?;
        memory.fill(1);
        let fill = JobRequest::fill(memory.range(), 0x0303_0303_0303_0303);
        let ids = (0..8)
            .map(|_| Ok(jobs.begin(&fill)?))
            .collect::<Result<Vec<_>>>()?;
        std::thread::sleep(Duration::from_micros(u64::from(round) * 50));
        memory.unmap(PAGES / 2..PAGES)?;
        for id in ids {
            let report = jobs.wait(id)?;
            let is_in_hole = memory.part(PAGES / 2..PAGES).contains(&report.address);
            ensure!(
                report.state == JobState::Done || is_in_hole,
                "{report:x?} in {:x?}",
                memory.range()
            );
        }
        ensure!(
            memory
                .page_bytes(0..PAGES / 2)
                .iter()
                .all(|&byte| byte == 3),
            "not what the jobs wrote"
        );
    }
    Ok(())
}
