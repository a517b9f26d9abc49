// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a worker has the device do with its memory. What jobs write is compared later, like anything else.

use super::action::{back_and_forth, hex};
use super::worker::{BegunJob, Worker};
use crate::cases::support::jobs::{Jobs, crc32c, expect_done};
use crate::cases::support::prelude::*;
use hmm_uapi::client::JobRequest;
use hmm_uapi::{JobState, JobStatus};
use std::ops::Range;

/// Jobs that share the work of an operation.
const SHARE: usize = 3;
/// Most pages of an operation whose bytes this process needs, too.
const MOST_PAGES: usize = 96;
/// Most jobs that go on at the same time.
const MOST_JOBS: usize = 12;
/// The width of the words to which jobs add, bytes.
const WORD: u64 = 8;

impl Worker<'_> {
    /// Jobs copy a pattern to some pages.
    pub(super) fn write_by_device(&mut self) -> Result<String> {
        let (device, index) = (self.some_device(), self.some_area());
        let (area, jobs) = (&mut self.areas[index], &self.jobs[device]);
        let (text, mergeable) = (area.to_string(), area.mergeable);
        let mover = &self.movers[device];
        let random = &mut self.random;
        let done = area
            .model
            .write_otherwise(random, MOST_PAGES, |pages, source, memory| {
                let range = memory.part(pages.clone());
                let requests = parts(0..pages.len()).map(|part| {
                    let to = memory.part(pages.start + part.start..pages.start + part.end);
                    JobRequest::copy(source.part(part), to.start)
                });
                let meanwhile = || back_and_forth(mover, mergeable, range.clone());
                let moved = all_done(jobs, requests, meanwhile)?;
                Ok(format!("{}: {moved} pages moved meanwhile", hex(&range)))
            });
        let done = done.with_context(|| text.clone())?;
        Ok(format!("{text}: {done}, on device {device}"))
    }

    /// A job reads some pages, and has the checksum of what should be there.
    pub(super) fn check_by_device(&mut self) -> Result<String> {
        let (device, index) = (self.some_device(), self.some_area());
        let (area, jobs) = (&self.areas[index], &self.jobs[device]);
        let (pages, bytes) = area.model.some_known(&mut self.random, MOST_PAGES);
        if pages.is_empty() {
            return Ok("nothing is known of what is there".to_owned());
        }
        let range = area.model.memory().part(pages);
        let text = format!("{area}: {} on device {device}", hex(&range));
        let id = jobs.begin(&JobRequest::crc32c(range.clone(), 0))?;
        let moved = back_and_forth(&self.movers[device], area.mergeable, range);
        let report = expect_done(jobs.wait(id)?).with_context(|| text.clone())?;
        let (moved, expected) = (moved?, u64::from(crc32c(&bytes)));
        ensure!(
            report.result == expected,
            "{text}: expected the checksum {expected:#x}, found {:#x}",
            report.result
        );
        Ok(format!("{text}: {moved} pages moved meanwhile"))
    }

    /// Jobs add numbers to each word that other jobs subtract again: atomically, or something else is there in the end.
    pub(super) fn add_by_device(&mut self) -> Result<String> {
        let (device, index) = (self.some_device(), self.some_area());
        let (area, jobs) = (&self.areas[index], &self.jobs[device]);
        let mut pages = area.model.some_pages(&mut self.random);
        pages.end = pages.end.min(pages.start + MOST_PAGES);
        let range = area.model.memory().part(pages);
        let text = format!("{area}: {} on device {device}", hex(&range));
        let words = (range.end - range.start) / WORD;
        let number = self.random.next();
        let requests = [number, number.wrapping_neg()]
            .map(|add| JobRequest::atomic_add(range.start, words, WORD, add));
        let meanwhile = || back_and_forth(&self.movers[device], area.mergeable, range.clone());
        let moved =
            all_done(jobs, requests.into_iter(), meanwhile).with_context(|| text.clone())?;
        Ok(format!("{text}: {moved} pages moved meanwhile"))
    }

    /// Begins a job that reads memory, whatever becomes of that memory.
    pub(super) fn begin_job(&mut self) -> Result<String> {
        if self.begun_jobs.len() == MOST_JOBS {
            self.end_job()?;
        }
        let (device, index) = (self.some_device(), self.some_area());
        let area = &self.areas[index];
        let range = area.model.some_range(&mut self.random);
        let text = format!("{area}: {} on device {device}", hex(&range));
        let id = (self.jobs[device].begin(&JobRequest::crc32c(range.clone(), 0)))
            .with_context(|| text.clone())?;
        self.begun_jobs.push(BegunJob { device, id, range });
        Ok(text)
    }

    /// Waits for one of the jobs, or cancels it. What it reads may be gone by now, or something else.
    pub(super) fn end_job(&mut self) -> Result<String> {
        if self.begun_jobs.is_empty() {
            return Ok("there are no jobs".to_owned());
        }
        let index = self.random.below(self.begun_jobs.len());
        let BegunJob { device, id, range } = self.begun_jobs.swap_remove(index);
        let text = format!("{} on device {device}", hex(&range));
        let jobs = &self.jobs[device];
        let is_cancelled = self.random.below(3) == 0;
        let report = match is_cancelled {
            true => jobs.device.cancel_job(id).map_err(Into::into),
            false => jobs.wait(id),
        };
        let report = report.with_context(|| text.clone())?;
        let is_right = match report.state {
            JobState::Done => report.status == Some(JobStatus::Ok),
            JobState::Cancelled => is_cancelled,
            JobState::Failed => {
                matches!(
                    report.status,
                    Some(JobStatus::Unmapped | JobStatus::Forbidden)
                ) && range.contains(&report.address)
            }
            JobState::Running => false,
        };
        ensure!(is_right, "{text}: {report:x?}");
        Ok(format!("{text}: {:?}, {:?}", report.state, report.status))
    }
}

/// Some pages in parts for as many jobs.
fn parts(pages: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let length = pages.len().div_ceil(SHARE).max(1);
    (pages.clone())
        .step_by(length)
        .map(move |start| start..(start + length).min(pages.end))
}

/// Begins all jobs, does another thing, and waits for the jobs, also if that fails. Each has to do all that it should.
fn all_done<'a, T>(
    jobs: &Jobs,
    requests: impl Iterator<Item = JobRequest<'a>>,
    meanwhile: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let mut ids = Vec::new();
    for request in requests {
        ids.push(jobs.begin(&request)?);
    }
    let done = meanwhile();
    for id in ids {
        expect_done(jobs.wait(id)?)?;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn the_parts_are_all_pages() {
        for length in 1..20 {
            let parts: Vec<_> = parts(5..5 + length).collect();
            assert!(parts.len() <= super::SHARE && parts.iter().all(|part| !part.is_empty()));
            assert!(parts.into_iter().flatten().eq(5..5 + length));
        }
    }
}
