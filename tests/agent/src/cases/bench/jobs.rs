// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device does with memory: page faults, what they cost the process, and a list.

use super::{fault_stages, measure::nanoseconds, prefetch, program};
use crate::cases::support::jobs::Jobs;
use crate::cases::support::memory::{HUGE, Memory, PAGE};
use crate::cases::support::nodes;
use crate::cases::support::random::Random;
use anyhow::{Context, Result, ensure};
use hmm_control::bench::JobSample;
use hmm_uapi::PreferredSide;
use hmm_uapi::client::{Advice, JobReport, JobRequest, Process};
use rustix::mm::MprotectFlags;
use std::hint::black_box;
use std::time::Instant;

/// Pages that are faulted in one by one.
const FAULTS: usize = 400;
/// Huge pages that move at a fault.
const HUGE_FAULTS: usize = 24;
/// Pages that are protected one by one.
const PROTECTED: usize = 400;
/// The driver maps along what is within so many pages of a fault.
const AROUND: usize = 16;
const UNMAPPED: usize = 64 << 20;
const NODES: usize = 100_000;
const NODE: usize = 64;

/// Measures everything once, in a process of its own.
pub(super) fn measure() -> Result<JobSample> {
    let jobs = Jobs::open()?;
    let mut sample = JobSample {
        unmapped_bytes: UNMAPPED as u64,
        nodes: NODES as u64,
        ..JobSample::default()
    };
    // Before this process has a context.
    sample.unmap_ns[1] = unmap(None)?;
    sample.unmap_ns[0] = unmap(Some(&jobs))?;
    faults(&jobs, &mut sample)?;
    let before = fault_stages::read()?;
    sample.huge_fault_ns = huge_faults(&jobs)?;
    sample.huge_fault_stages_ns = fault_stages::since(&before)?;
    sample.huge_fault_no_copy_ns = huge_faults(&Jobs::on(&nodes::second()?)?)?;
    sample.protect_ns = [protect(&jobs, true)?, protect(&jobs, false)?];
    sample.walk_ns = walk(&jobs)?;
    (sample.program_steps, sample.program_ns) = program::measure()?;
    (sample.prefetches, sample.engine_ns) = prefetch::measure(&jobs)?;
    Ok(sample)
}

/// Reads the first 8 bytes of a page.
fn read(jobs: &Jobs, memory: &Memory, page: usize) -> Result<JobReport> {
    let start = memory.part(page..page + 1).start;
    jobs.done(&JobRequest::crc32c(start..start + 8, 0))
}

pub(super) fn device_ns(report: &JobReport) -> Result<u64> {
    u64::try_from(report.device_time.as_nanos()).context("a time beyond all measure")
}

fn faults(jobs: &Jobs, sample: &mut JobSample) -> Result<()> {
    let mut memory = Memory::single(FAULTS * AROUND)?;
    memory.fill(1);
    for fault in 0..FAULTS {
        let report = read(jobs, &memory, fault * AROUND)?;
        // A page may have been mapped along with one before.
        if report.faults == 1 {
            sample.fault_ns.push(device_ns(&report)?);
        }
        let report = read(jobs, &memory, fault * AROUND)?;
        ensure!(report.faults == 0, "the same page faulted again");
        sample.resident_ns.push(device_ns(&report)?);
    }
    ensure!(
        sample.fault_ns.len() * 2 > FAULTS,
        "{} of {FAULTS} jobs had a page fault",
        sample.fault_ns.len()
    );
    Ok(())
}

fn huge_faults(jobs: &Jobs) -> Result<Vec<u64>> {
    let mut memory = Memory::huge(HUGE_FAULTS)?;
    memory.fill(1);
    let advice = Advice {
        side: Some(PreferredSide::Device),
        ..Advice::default()
    };
    jobs.device
        .advise(Process::Caller, memory.range(), advice)?;
    let mut times = Vec::new();
    for huge in 0..HUGE_FAULTS {
        times.push(device_ns(&read(jobs, &memory, huge * HUGE / PAGE)?)?);
    }
    let there = jobs.device.residency(Process::Caller, memory.range())?;
    ensure!(
        there.device_pages * 100 >= 99 * memory.pages() as u64,
        "not all moved to the device: {there:?}"
    );
    Ok(times)
}

/// Write protection of single pages, which the kernel announces to the driver.
fn protect(jobs: &Jobs, is_mapped: bool) -> Result<Vec<u64>> {
    let mut memory = Memory::single(PROTECTED)?;
    memory.fill(1);
    if is_mapped {
        jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
    }
    let mut times = Vec::new();
    for page in 0..PROTECTED {
        let started = Instant::now();
        memory.protect(page..page + 1, MprotectFlags::READ)?;
        times.push(nanoseconds(started)?);
    }
    Ok(times)
}

fn unmap(jobs: Option<&Jobs>) -> Result<u64> {
    let pages = UNMAPPED / PAGE;
    let mut memory = Memory::single(pages)?;
    memory.fill(1);
    if let Some(jobs) = jobs {
        jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
        let mapped = jobs.done(&JobRequest::probe(memory.range(), 1))?.result;
        ensure!(
            mapped == pages as u64,
            "{mapped} of {pages} pages are mapped"
        );
    }
    let started = Instant::now();
    memory.unmap(0..pages)?;
    nanoseconds(started)
}

/// A list of nodes in a random order; both walk all of it, once it is mapped.
fn walk(jobs: &Jobs) -> Result<[u64; 2]> {
    let mut memory = Memory::single((NODES * NODE).div_ceil(PAGE))?;
    let base = memory.address() as u64;
    let mut order: Vec<usize> = (0..NODES).collect();
    let mut random = Random::new(1);
    for index in (1..NODES).rev() {
        order.swap(index, random.below(index + 1));
    }
    for (place, &node) in order.iter().enumerate() {
        let next = order
            .get(place + 1)
            .map_or(0, |&next| base + (next * NODE) as u64);
        let bytes = &mut memory.bytes_mut()[node * NODE..node * NODE + 16];
        bytes[..8].copy_from_slice(&next.to_le_bytes());
        bytes[8..].copy_from_slice(&1_u64.to_le_bytes());
    }
    let request = JobRequest::walk(base + (order[0] * NODE) as u64, 0, 8, NODES as u64, None);
    jobs.done(&request)?;
    let report = jobs.done(&request)?;
    ensure!(
        report.result == NODES as u64 && report.faults == 0,
        "{report:?}"
    );
    let mut by_cpu = 0;
    for _ in 0..2 {
        let started = Instant::now();
        let (mut node, mut sum) = (order[0] * NODE, 0);
        loop {
            let bytes = &memory.bytes()[node..node + 16];
            sum += u64::from_ne_bytes(bytes[8..].try_into()?);
            match u64::from_ne_bytes(bytes[..8].try_into()?) {
                0 => break,
                next => node = usize::try_from(next - base)?,
            }
        }
        ensure!(
            black_box(sum) == NODES as u64,
            "the CPU counted {sum} nodes"
        );
        by_cpu = nanoseconds(started)?;
    }
    Ok([device_ns(&report)?, by_cpu])
}
