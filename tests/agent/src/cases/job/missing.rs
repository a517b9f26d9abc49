// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages that only the handler of a userfaultfd could provide, or allow to be written: a job ends there, and does not wait
//! for it (`docs/life-of-a-job.md`).

use crate::cases::support::jobs::{Jobs, crc32c};
use crate::cases::support::pattern;
use crate::cases::support::prelude::*;
use crate::cases::support::userfaultfd::{self, Userfaultfd};
use hmm_uapi::JobStatus;
use hmm_uapi::client::JobRequest;

pub(super) const CASES: &[Case] = &[
    Case::new("job/page-that-userfaultfd-misses-anon-4k", misses),
    Case::new("job/page-that-userfaultfd-protects-anon-4k", protects),
];

const PAGES: usize = 8;
/// The page that the handler has to provide, or to allow.
const PAGE_OF_HANDLER: usize = 5;

fn misses() -> Result<()> {
    let (jobs, uffd) = (Jobs::open()?, Userfaultfd::new(0)?);
    let mut memory = Memory::single(PAGES)?;
    memory.fill_pages(0..PAGE_OF_HANDLER, 1);
    memory.fill_pages(PAGE_OF_HANDLER + 1..PAGES, 1);
    uffd.register(memory.range(), userfaultfd::MODE_MISSING)?;
    let missing = memory.part(PAGE_OF_HANDLER..PAGE_OF_HANDLER + 1).start;
    let sum = JobRequest::crc32c(memory.range(), 0);
    for request in [&sum, &JobRequest::fill(missing..memory.range().end, 0)] {
        jobs.fails(
            "a page that is missing",
            request,
            JobStatus::Unmapped,
            missing,
        )?;
    }
    let mut page = vec![0; PAGE];
    pattern::fill(&mut page, PAGE_OF_HANDLER, 1);
    uffd.copy(missing, &page)?;
    let done = jobs.done(&sum)?;
    ensure!(
        done.result == u64::from(crc32c(memory.bytes())),
        "the device read something else"
    );
    memory.check(1)
}

fn protects() -> Result<()> {
    let (jobs, uffd) = (Jobs::open()?, Userfaultfd::new(0)?);
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    uffd.register(memory.range(), userfaultfd::MODE_WP)?;
    let fill = JobRequest::fill(memory.range(), 0x0202_0202_0202_0202);
    // Also where the device may write before.
    for is_mapped in [false, true] {
        if is_mapped {
            jobs.done(&fill)?;
        }
        let protected = memory.part(PAGE_OF_HANDLER..PAGE_OF_HANDLER + 1);
        uffd.protect(protected.clone(), true)?;
        jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
        jobs.fails(
            "a page that is protected",
            &fill,
            JobStatus::Unmapped,
            protected.start,
        )?;
        uffd.protect(protected, false)?;
    }
    jobs.done(&fill)?;
    ensure!(
        memory.bytes().iter().all(|&byte| byte == 2),
        "not what the job wrote"
    );
    Ok(())
}
