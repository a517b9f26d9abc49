// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What must be true of every reply.

use anyhow::{Result, ensure};
use hmm_uapi::{
    Evict, JobState, JobStatus, JobWait, Limit, Migrate, PrefetchState, Residency, SkipReason,
    Stats, Wait,
};

const PAGE: u64 = 4096;

/// Pages that are accounted for. Slots without a reason must be zero.
fn pages(moved: u64, skipped: &[u64]) -> Result<u64> {
    ensure!(
        skipped.iter().skip(SkipReason::ALL.len()).all(|&n| n == 0),
        "pages are counted for no reason: {skipped:?}"
    );
    Ok(skipped
        .iter()
        .fold(moved, |sum, &pages| sum.wrapping_add(pages)))
}

pub(super) fn migrate(call: &Migrate, done: bool) -> Result<()> {
    ensure!(
        call.start <= call.next && call.next <= call.end && (!done || call.next == call.end),
        "{call:x?}"
    );
    let counted = pages(call.pages_moved, &call.pages_skipped)?;
    ensure!(
        counted == (call.next - call.start) / PAGE,
        "{counted} pages are accounted for: {call:x?}"
    );
    ensure!(
        call.doorbells <= call.batches && call.pages_moved.min(1) <= call.batches,
        "{call:?}"
    );
    Ok(())
}

pub(super) fn residency(call: &Residency) -> Result<()> {
    let sum = call.system_pages + call.device_pages + call.other_pages;
    ensure!(sum == (call.end - call.start) / PAGE, "{call:x?}");
    Ok(())
}

/// Whether the prefetch has ended. Only one that is done has gone through `range` pages.
pub(super) fn wait(call: &Wait, range: Option<u64>) -> Result<bool> {
    let counted = pages(call.pages_moved, &call.pages_skipped)?;
    let state = PrefetchState::from_raw(call.state);
    let is_right = match (state, range) {
        (None, _) => false,
        (Some(PrefetchState::Done), Some(range)) => counted == range && call.error == 0,
        // ENOMEM, ESRCH.
        (Some(PrefetchState::Failed), _) => [12, 3].contains(&call.error),
        (Some(_), Some(range)) => counted <= range && call.error == 0,
        (Some(_), None) => call.error == 0,
    };
    ensure!(
        is_right,
        "{range:?} pages, {counted} accounted for: {call:x?}"
    );
    Ok(state != Some(PrefetchState::Running))
}

/// What is told of a job. Returns whether it has ended.
pub(super) fn job_wait(call: &JobWait) -> Result<bool> {
    let state = JobState::from_raw(call.state);
    let status = JobStatus::from_raw(call.status);
    let is_right = match state {
        Some(JobState::Running) => call.error == 0 && call.status == 0 && call.result == 0,
        Some(JobState::Done) => call.error == 0 && status == Some(JobStatus::Ok),
        Some(JobState::Cancelled) => status == Some(JobStatus::Cancelled),
        Some(JobState::Failed) => call.error != 0 && status != Some(JobStatus::Ok),
        None => false,
    };
    ensure!(is_right, "{call:x?}");
    Ok(state != Some(JobState::Running))
}

pub(super) fn evict(call: &Evict) -> Result<()> {
    let counted = pages(call.bytes_evicted / PAGE, &call.pages_skipped)?;
    ensure!(
        call.bytes != 0 || counted == (call.end - call.start) / PAGE,
        "{counted} pages are accounted for: {call:x?}"
    );
    Ok(())
}

pub(super) fn limit(call: &Limit) -> Result<()> {
    ensure!(
        call.limit_bytes == u64::MAX || call.limit_bytes.is_multiple_of(PAGE),
        "{call:x?}"
    );
    ensure!(call.resident_bytes.is_multiple_of(PAGE), "{call:x?}");
    Ok(())
}

/// Counters only grow.
pub(super) fn stats(before: &Stats, now: &Stats) -> Result<()> {
    let counters = |stats: &Stats| {
        [
            stats.bytes_to_device,
            stats.bytes_to_system,
            stats.bytes_by_fault,
            stats.bytes_by_eviction,
            stats.peak_resident_bytes,
            stats.cpu_faults,
            stats.cpu_faults_failed,
            stats.batches,
            stats.doorbells,
        ]
    };
    let grow = |before: &[u64], now: &[u64]| before.iter().zip(now).all(|(old, new)| old <= new);
    ensure!(
        grow(&counters(before), &counters(now)) && grow(&before.pages_skipped, &now.pages_skipped),
        "a counter went back: {before:?}, {now:?}"
    );
    Ok(())
}
