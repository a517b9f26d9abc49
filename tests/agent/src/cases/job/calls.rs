// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! JOB and JOB_WAIT: waiting, cancelling, being told, and calls that the driver refuses.

use crate::cases::support::gate::Gate;
use crate::cases::support::ioctl::{RawNode, expect_errno};
use crate::cases::support::jobs::{Jobs, expect_done};
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use crate::cases::support::signals::{Calls, while_interrupted};
use hmm_uapi::client::{Error, JobId, JobRequest};
use hmm_uapi::{
    IOCTL_TYPE, JOB_NR, JOB_WAIT_NR, JOBS_MAX, Job, JobKind, JobState, JobStatus, JobWait,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::sync::atomic::Ordering;
use std::time::Duration;
use zerocopy::IntoBytes;

pub(super) const CASES: &[Case] = &[
    Case::new("job/eventfd", told_by_eventfd),
    Case::new("job/cancel", cancel),
    Case::new("job/close-ends-jobs", close_ends),
    Case::new("job/wait-interrupted-by-signal", wait_interrupted),
    Case::new("job/most-of-one-file", most_of_one_file),
    Case::new("job/of-another-process", of_another_process),
    Case::new("job/bad-input-of-calls", bad_input),
];

/// A list of one node that points to itself: a job that never comes to the end of it.
pub(in crate::cases) fn endless(memory: &Memory) -> JobRequest<'static> {
    let address = memory.address() as u64;
    let words = [address as u32, (address >> 32) as u32, 1, 0];
    for (index, word) in words.into_iter().enumerate() {
        memory.word(4 * index).store(word, Ordering::SeqCst);
    }
    JobRequest::walk(address, 0, 8, u64::MAX, None)
}

fn told_by_eventfd() -> Result<()> {
    let jobs = Jobs::open()?;
    let mut memory = Memory::single(200)?;
    memory.fill(1);
    let told = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let request = JobRequest::crc32c(memory.range(), 0).notifying(told.as_fd());
    let ids = (0..5)
        .map(|_| jobs.begin(&request))
        .collect::<Result<Vec<_>, _>>()?;
    let mut ended = 0;
    while ended < 5 {
        let limit = rustix::event::Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        let ready = poll(&mut [PollFd::new(&told, PollFlags::IN)], Some(&limit))?;
        ensure!(ready == 1, "the eventfd told of {ended} ends of 5");
        let mut count = [0; 8];
        rustix::io::read(&told, &mut count)?;
        ended += u64::from_ne_bytes(count);
    }
    for id in ids {
        // Told, so it has ended.
        let report = jobs.device.job_state(id)?;
        expect_done(report)?;
    }
    // One end each, and the descriptor of a job that goes on may be closed.
    ensure!(
        rustix::io::read(&told, &mut [0; 8]) == Err(Errno::AGAIN),
        "more ends than jobs"
    );
    let endless_memory = Memory::single(1)?;
    let id = jobs.begin(&endless(&endless_memory).notifying(told.as_fd()))?;
    drop(told);
    jobs.device.cancel_job(id)?;
    memory.check(1)
}

fn expect_gone(jobs: &Jobs, id: JobId) -> Result<()> {
    let gone = jobs.device.job_state(id);
    ensure!(
        matches!(
            gone,
            Err(Error::Call {
                errno: Errno::NOENT,
                ..
            })
        ),
        "the end was told, and again: {gone:?}"
    );
    Ok(())
}

fn cancel() -> Result<()> {
    let jobs = Jobs::open()?;
    let memory = Memory::single(1)?;
    let request = endless(&memory);
    for _ in 0..20 {
        let id = jobs.begin(&request)?;
        let report = jobs.device.wait_job(id, Some(Duration::from_millis(5)))?;
        ensure!(report.state == JobState::Running, "{report:?}");
        let report = jobs.device.cancel_job(id)?;
        ensure!(
            report.state == JobState::Cancelled
                && report.status == Some(JobStatus::Cancelled)
                && report.error == Some(Errno::CANCELED),
            "{report:?}"
        );
        expect_gone(&jobs, id)?;
    }
    // Cancelling a job that has ended does not change what became of it.
    let told = eventfd(0, EventfdFlags::CLOEXEC)?;
    let request = JobRequest::crc32c(memory.range(), 0).notifying(told.as_fd());
    let id = jobs.begin(&request)?;
    rustix::io::read(&told, &mut [0; 8])?;
    expect_done(jobs.device.cancel_job(id)?)?;
    expect_gone(&jobs, id)
}

/// Closing the node ends its jobs and their contexts. The memory of the process can be unmapped at once.
fn close_ends() -> Result<()> {
    for _ in 0..10 {
        let jobs = Jobs::open()?;
        let memory = Memory::single(1)?;
        let request = endless(&memory);
        for _ in 0..8 {
            jobs.begin(&request)?;
        }
        drop(jobs);
        drop(memory);
    }
    // Each open file has a context of its own; what many files leave behind would be noticed.
    let mut memory = Memory::single(1)?;
    memory.fill(1);
    for round in 0..1200 {
        Jobs::open()?
            .done(&JobRequest::crc32c(memory.range(), 0))
            .with_context(|| format!("open file {round}"))?;
    }
    memory.check(1)
}

/// A signal ends the waiting, but not the job, which can be waited for again.
fn wait_interrupted() -> Result<()> {
    let jobs = Jobs::open()?;
    let memory = Memory::single(1)?;
    for (limit, calls) in [
        (None, Calls::End),
        (Some(Duration::from_secs(60)), Calls::Restart),
    ] {
        let id = jobs.begin(&endless(&memory))?;
        let told = while_interrupted(calls, || {
            loop {
                match jobs.device.wait_job(id, limit) {
                    Err(Error::Call {
                        errno: Errno::INTR, ..
                    }) => break Ok(true),
                    Ok(report) if report.state == JobState::Running => {}
                    other => bail!("an endless job: {other:?}"),
                }
            }
        })?;
        ensure!(told, "no signal ended the call");
        let report = jobs.device.cancel_job(id)?;
        ensure!(report.state == JobState::Cancelled, "{report:?}");
    }
    Ok(())
}

fn most_of_one_file() -> Result<()> {
    let jobs = Jobs::open()?;
    let mut memory = Memory::single(1)?;
    memory.fill(1);
    let request = JobRequest::crc32c(memory.range(), 0);
    let mut ids = Vec::new();
    for _ in 0..JOBS_MAX {
        loop {
            match jobs.begin(&request) {
                Ok(id) => break ids.push(id),
                // The device has no room at the moment.
                Err(Error::Call {
                    errno: Errno::AGAIN,
                    ..
                }) => std::thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
    }
    let more = jobs.begin(&request);
    ensure!(
        matches!(
            more,
            Err(Error::Call {
                errno: Errno::AGAIN,
                ..
            })
        ),
        "one more than there may be: {more:?}"
    );
    for id in ids {
        expect_done(jobs.wait(id)?)?;
    }
    jobs.done(&request)?;
    memory.check(1)
}

/// The memory of a child, and that of a process that the caller may not debug.
fn of_another_process() -> Result<()> {
    let mut memory = Memory::single(100)?;
    memory.fill(1);
    let (ready, check) = (Gate::new()?, Gate::new()?);
    let child = fork(|| {
        memory.fill(2);
        ready.open()?;
        check.wait()?;
        memory.check_pages(0..50, 2)?;
        ensure!(
            memory.page_bytes(50..100).iter().all(|&byte| byte == 0x5a),
            "the device was to fill the child's pages"
        );
        Ok(())
    })?;
    ready.wait()?;
    let jobs = Jobs::open()?;
    let pid = child.id()?.try_into()?;
    let request = JobRequest::fill(memory.part(50..100), 0x5a5a_5a5a_5a5a_5a5a);
    let id = jobs.device.begin_job_for(pid, &request)?;
    expect_done(jobs.wait(id)?)?;
    // The parent has the same addresses and other pages.
    memory.check(1)?;
    let nobodys = fork(|| {
        let user = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_uid(user).context("cannot become nobody")?;
        let refused = jobs.device.begin_job_for(pid, &request);
        ensure!(
            matches!(refused, Err(Error::Permission { .. })),
            "nobody works on root's memory: {refused:?}"
        );
        Ok(())
    })?;
    nobodys.wait()?;
    check.open()?;
    child.wait()
}

fn bad_input() -> Result<()> {
    drop(Jobs::open()?);
    let memory = Memory::single(4)?;
    let (start, bytes) = (memory.address() as u64, memory.length() as u64);
    let node = RawNode::open(&nodes::first())?;
    let call = |mut job: Job| node.call(IOCTL_TYPE, JOB_NR, job.as_mut_bytes());
    let job = |kind: JobKind, arguments: &[u64]| {
        let mut job = Job {
            kind: kind as u32,
            ..Job::default()
        };
        job.arguments[..arguments.len()].copy_from_slice(arguments);
        job
    };
    let good = job(JobKind::Fill, &[start, bytes, 0]);
    ensure!(call(good) == Ok(()), "a good job: {:?}", call(good));
    let top = 1_u64 << 57;
    for (what, wrong) in [
        ("no kind", Job { kind: 0, ..good }),
        ("an unknown kind", Job { kind: 8, ..good }),
        ("a kind beyond a byte", Job { kind: 257, ..good }),
        ("an unknown flag", Job { flags: 8, ..good }),
        (
            "all flags",
            Job {
                flags: u32::MAX,
                ..good
            },
        ),
        ("a flag of another kind", Job { flags: 2, ..good }),
        ("an eventfd that does not count", Job { eventfd: 1, ..good }),
        (
            "an argument that the kind lacks",
            job(JobKind::Fill, &[start, bytes, 0, 1]),
        ),
        ("an empty range", job(JobKind::Fill, &[start, 0, 0])),
        (
            "a range that wraps",
            job(JobKind::Fill, &[start, u64::MAX, 0]),
        ),
        (
            "a range that wraps by one",
            job(JobKind::Crc32c, &[start, u64::MAX - start + 1, 0]),
        ),
        (
            "a range beyond all addresses",
            job(JobKind::Fill, &[top - 8, 16, 0]),
        ),
        (
            "an address of the kernel",
            job(JobKind::Fill, &[0xffff_8880_0000_0000, 8, 0]),
        ),
        (
            "a CRC beyond 32 bits",
            job(JobKind::Crc32c, &[start, bytes, 1 << 32]),
        ),
        (
            "a copy onto itself",
            job(JobKind::Copy, &[start, start + 8, 16]),
        ),
        (
            "words of 2 bytes",
            job(JobKind::AtomicAdd, &[start, 1, 1, 2]),
        ),
        (
            "more words than addresses",
            job(JobKind::AtomicAdd, &[start, 1 << 61, 1, 8]),
        ),
        (
            "words that are not aligned",
            job(JobKind::AtomicAdd, &[start + 4, 1, 1, 8]),
        ),
        ("a walk of no node", job(JobKind::Walk, &[start, 0, 0, 8])),
        (
            "a node of 4 GiB",
            job(JobKind::Walk, &[start, 1 << 32, 1, 8]),
        ),
        (
            "a probe of half a page",
            job(JobKind::Probe, &[start, 2048, 1]),
        ),
        (
            "a probe of unknown permissions",
            job(JobKind::Probe, &[start, bytes, 16]),
        ),
        (
            "a probe that may not fault",
            Job {
                flags: 1,
                ..job(JobKind::Probe, &[start, bytes, 1])
            },
        ),
    ] {
        expect_errno(what, call(wrong), Errno::INVAL)?;
    }
    for (what, wrong, errno) in [
        (
            "no descriptor",
            Job {
                flags: 4,
                eventfd: -1,
                ..good
            },
            Errno::BADF,
        ),
        (
            "a descriptor that is closed",
            Job {
                flags: 4,
                eventfd: 9999,
                ..good
            },
            Errno::BADF,
        ),
        (
            "no eventfd",
            Job {
                flags: 4,
                eventfd: 2,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "no process",
            Job {
                pid: i32::MAX,
                ..good
            },
            Errno::SRCH,
        ),
        ("a kernel thread", Job { pid: 2, ..good }, Errno::SRCH),
    ] {
        expect_errno(what, call(wrong), errno)?;
    }
    let wait = |mut wait: JobWait| node.call(IOCTL_TYPE, JOB_WAIT_NR, wait.as_mut_bytes());
    for (what, wrong, errno) in [
        (
            "an unknown job",
            JobWait {
                id: 1 << 40,
                ..JobWait::default()
            },
            Errno::NOENT,
        ),
        (
            "unknown flags of a wait",
            JobWait {
                id: 1,
                flags: 2,
                ..JobWait::default()
            },
            Errno::INVAL,
        ),
        (
            "a reserved field",
            JobWait {
                id: 1,
                reserved: 1,
                ..JobWait::default()
            },
            Errno::INVAL,
        ),
    ] {
        expect_errno(what, wait(wrong), errno)?;
    }
    let own = std::process::id().cast_signed().try_into()?;
    let jobs = Jobs::open()?;
    let refused = jobs
        .device
        .begin_job_for(own, &JobRequest::fill(memory.range(), 0));
    ensure!(matches!(refused, Err(Error::OwnMemory)), "{refused:?}");
    Ok(())
}
