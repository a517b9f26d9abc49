// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Prefetches of the same memory in pieces of several sizes, and how soon a job has its first page.

use super::jobs::device_ns;
use super::measure::nanoseconds;
use crate::cases::support::jobs::Jobs;
use crate::cases::support::memory::{HUGE, Memory};
use anyhow::{Context, Result, ensure};
use hmm_control::bench::{PREFETCHED, PREFETCHES, PrefetchSample};
use hmm_uapi::client::{JobRequest, MigrateRequest, PrefetchRequest, Process};
use hmm_uapi::{Direction, MigrateFlags, PrefetchState};
use std::time::Instant;

/// Measures each size, and a job that copies as much to device memory, nanoseconds.
pub(super) fn measure(jobs: &Jobs) -> Result<([PrefetchSample; PREFETCHES.len()], u64)> {
    let huge_pages = usize::try_from(PREFETCHED)? / HUGE;
    let mut memory = Memory::huge(huge_pages)?;
    memory.fill(1);
    let mut samples = [PrefetchSample::default(); PREFETCHES.len()];
    for (sample, bytes) in samples.iter_mut().zip(PREFETCHES) {
        *sample = prefetch(jobs, &memory, bytes)?;
        to(jobs, &memory, Direction::ToSystem)?;
    }
    let mut target = Memory::huge(huge_pages)?;
    target.fill(2);
    to(jobs, &target, Direction::ToDevice)?;
    // The first one faults the pages in.
    let copy = JobRequest::copy(memory.range(), target.range().start);
    jobs.done(&copy)?;
    let report = jobs.done(&copy)?;
    ensure!(report.faults == 0, "the copy faulted: {report:?}");
    target.check(1)?;
    Ok((samples, device_ns(&report)?))
}

/// Moves all of it.
fn to(jobs: &Jobs, memory: &Memory, direction: Direction) -> Result<()> {
    let report = jobs.device.migrate_all(&MigrateRequest {
        process: Process::Caller,
        range: memory.range(),
        direction,
        flags: MigrateFlags::default(),
    })?;
    ensure!(
        report.pages_moved * 100 >= 99 * memory.pages() as u64,
        "not all moved: {report:?}"
    );
    Ok(())
}

fn prefetch(jobs: &Jobs, memory: &Memory, bytes: u64) -> Result<PrefetchSample> {
    let range = memory.range();
    let started = Instant::now();
    let mut ids = Vec::new();
    for start in range.clone().step_by(usize::try_from(bytes)?) {
        let id = jobs.device.prefetch(&PrefetchRequest {
            process: Process::Caller,
            range: start..(start + bytes).min(range.end),
            direction: Some(Direction::ToDevice),
            flags: MigrateFlags::default(),
        });
        ids.push(id.with_context(|| format!("prefetch {} of {bytes} bytes", ids.len()))?);
    }
    jobs.done(&JobRequest::crc32c(range.start..range.start + 8, 0))?;
    let first_touch_ns = nanoseconds(started)?;
    let mut moved = 0;
    for id in ids {
        let report = jobs.device.wait(id, None)?;
        ensure!(report.state == PrefetchState::Done, "{report:?}");
        moved += report.pages_moved;
    }
    let total_ns = nanoseconds(started)?;
    ensure!(
        moved * 100 >= 99 * memory.pages() as u64,
        "{moved} of {} pages moved",
        memory.pages()
    );
    Ok(PrefetchSample {
        first_touch_ns,
        total_ns,
    })
}
