// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs that are refused, each with the status that says why, and without a report.

use hmm_front_end::{DATA, FrontEnd, Layout, Process, end_status};
use hmm_protocol::{ControlKind, Job, JobFlags, JobKind, MapEntry, Status, VIRTUAL_ADDRESS_END};
use zerocopy::{
    IntoBytes,
    byteorder::little_endian::{U16, U64},
};

use crate::{ALL, BASE, CONTEXT, PAGE, PROGRAM, map, start};

fn fill(front_end: &FrontEnd) -> Job {
    front_end.job(
        JobKind::Fill,
        JobFlags::default(),
        CONTEXT,
        &[BASE, PAGE, 1],
    )
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (process, mut front_end) = start(&[]);
    let good = fill(&front_end);
    let with = |change: &dyn Fn(&mut Job)| {
        let mut job = good;
        change(&mut job);
        job
    };
    let kind = |kind: JobKind, arguments: &[u64]| {
        Job::new(
            kind,
            JobFlags::default(),
            CONTEXT,
            good.cookie.get(),
            good.generation.get(),
            arguments,
        )
    };
    let end = VIRTUAL_ADDRESS_END;
    for (job, status) in [
        (with(&|job| job.kind = 0), Status::BadOp),
        (with(&|job| job.kind = 8), Status::BadOp),
        (with(&|job| job.flags = 4), Status::BadFlags),
        (with(&|job| job.flags = JobFlags::WRITE.0), Status::BadFlags),
        (
            with(&|job| job.reserved = U16::new(1)),
            Status::ReservedNonZero,
        ),
        (
            with(&|job| job.reserved2 = U64::new(1)),
            Status::ReservedNonZero,
        ),
        (
            with(&|job| job.arguments[11] = U64::new(1)),
            Status::ReservedNonZero,
        ),
        (
            with(&|job| job.generation = U64::new(good.generation.get() + 1)),
            Status::StaleGeneration,
        ),
        (
            with(&|job| job.context = (CONTEXT + 1).into()),
            Status::BadContext,
        ),
        (
            with(&|job| job.context = u32::MAX.into()),
            Status::BadContext,
        ),
        (kind(JobKind::Fill, &[end - 8, 16, 0]), Status::BadAddress),
        (kind(JobKind::Fill, &[u64::MAX, 2, 0]), Status::BadAddress),
        (kind(JobKind::Fill, &[BASE, 0, 0]), Status::BadAddress),
        (kind(JobKind::Copy, &[BASE, BASE + 8, 16]), Status::Overlap),
        (
            kind(JobKind::AtomicAdd, &[BASE + 4, 1, 1, 8]),
            Status::Misaligned,
        ),
        (
            kind(JobKind::AtomicAdd, &[BASE, u64::MAX, 1, 8]),
            Status::BadAddress,
        ),
        (
            kind(JobKind::AtomicAdd, &[BASE, 1, 1, 2]),
            Status::BadLength,
        ),
        (kind(JobKind::Walk, &[BASE, 0, 0, 8]), Status::BadCount),
        (
            kind(JobKind::Walk, &[BASE, 1 << 32, 1, 8]),
            Status::BadLength,
        ),
        (
            kind(JobKind::Probe, &[BASE + 1, PAGE, 0]),
            Status::BadAddress,
        ),
        (kind(JobKind::Probe, &[BASE, PAGE, 16]), Status::BadFlags),
    ] {
        let answer = front_end.submit_job(&job);
        assert_eq!(answer.status(), status, "{job:?}");
        assert_eq!(answer.completion.entries_ok.get(), 0);
        assert_eq!(answer.completion.cookie, good.cookie);
    }
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(stats["stats"]["jobs"]["present"], 0);
    assert_eq!(stats["stats"]["jobs"]["accepted"], serde_json::json!({}));
    assert_eq!(
        stats["stats"]["queues"]["job0"]["results"]["bad-address"],
        5
    );
}

#[test]
fn a_request_of_another_length_is_no_job() {
    let (_process, mut front_end) = start(&[]);
    let bytes = fill(&front_end).as_bytes().to_vec();
    let queue = front_end.job_queue(1);
    for request in [&bytes[..127], &bytes[..8], &[&bytes[..], &[0]].concat()] {
        let record = front_end.submit(queue, request, 0);
        front_end.rings[usize::from(queue)].kick();
        let answer = front_end.answer(queue, record, 0);
        assert_eq!(answer.status(), Status::BadLength, "{}", request.len());
    }
}

#[test]
fn two_jobs_at_a_time_have_no_cookie_in_common() {
    let (_process, mut front_end) = start(&[]);
    let job = fill(&front_end);
    let answer = front_end.submit_job(&job);
    assert_eq!(answer.status(), Status::Ok);
    assert_eq!(answer.completion.entries_ok.get(), 1);
    assert_eq!(front_end.submit_job(&job).status(), Status::Busy);
    front_end.post_report_buffers(2);
    let fault = front_end.report();
    map(
        &mut front_end,
        &[
            MapEntry::map(BASE, PAGE, DATA, ALL, 12),
            MapEntry::resume(fault.value.get()),
        ],
    );
    assert_eq!(end_status(&front_end.report()), Status::Ok);
    // It has ended, and the driver knows.
    assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
    front_end.post_report_buffers(1);
    assert_eq!(end_status(&front_end.report()), Status::Ok);
}

#[test]
fn without_a_session_there_are_no_jobs() {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
    let job = fill(&front_end);
    assert_eq!(front_end.submit_job(&job).status(), Status::NoSession);
    assert_eq!(
        front_end.ask(ControlKind::JobCancel, 1, 0),
        Status::NoSession
    );
}

#[test]
fn options_bound_what_the_device_publishes() {
    let arguments = [
        "--job-queues",
        "3",
        "--max-jobs",
        "5",
        "--fault-timeout-ms",
        "77",
    ];
    let (_process, mut front_end) = start(&arguments);
    let config = front_end.config();
    assert_eq!(config.job_queues.get(), 3);
    assert_eq!(config.max_jobs.get(), 5);
    assert_eq!(config.fault_timeout_ms.get(), 77);
    let job = fill(&front_end);
    let queue = front_end.job_queue(2);
    assert_eq!(front_end.submit_job_on(queue, &job).status(), Status::Ok);
}
