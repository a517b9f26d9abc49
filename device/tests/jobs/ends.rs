// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Everything that ends a job before it is done, and everything that must not.

use std::time::{Duration, Instant};

use hmm_front_end::{DATA, FrontEnd, Layout, Process, end_status};
use hmm_protocol::{
    ControlKind, Features, Job, JobFlags, JobKind, MapEntry, MapFlags, Report, ReportKind, Status,
};
use vhost::{VhostBackend, vhost_user::VhostUserFrontend};

use crate::{ALL, BASE, CONTEXT, DEVICE, PAGE, PROGRAM, create, map, open, start};

/// Longer than anything takes on a busy machine; only a hang comes so far.
const HANG: Duration = Duration::from_secs(60);

/// A list of one node that follows itself and counts: a job on it works until it is ended.
fn endless(front_end: &mut FrontEnd, context: u32) -> Job {
    let entry = MapEntry::map(BASE, PAGE, DATA, ALL, 12);
    assert_eq!(front_end.change(context, &[entry]).status(), Status::Ok);
    front_end.guest.write(DATA, &BASE.to_le_bytes());
    front_end.job(
        JobKind::Walk,
        JobFlags::WRITE,
        context,
        &[BASE, 0, u64::MAX, 8, 1],
    )
}

fn counter(front_end: &FrontEnd) -> u64 {
    u64::from_le_bytes(
        front_end
            .guest
            .read(DATA + 8, 8)
            .try_into()
            .expect("8 bytes"),
    )
}

/// Waits until an endless job counts.
fn wait_until_it_counts(front_end: &FrontEnd) {
    let (before, started) = (counter(front_end), Instant::now());
    while counter(front_end) == before {
        assert!(started.elapsed() < HANG, "the job does not work");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Nothing counts any more.
fn stands_still(front_end: &FrontEnd) {
    let before = counter(front_end);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(counter(front_end), before, "a job still writes");
}

fn submit(front_end: &mut FrontEnd, job: &Job) {
    assert_eq!(front_end.submit_job(job).status(), Status::Ok);
}

fn fill(front_end: &FrontEnd, at: u64) -> Job {
    front_end.job(JobKind::Fill, JobFlags::default(), CONTEXT, &[at, 64, 1])
}

fn is_end_of(report: &Report, job: &Job, status: Status) {
    assert_eq!(report.cookie, job.cookie);
    assert_eq!(end_status(report), status, "{report:?}");
}

#[test]
fn a_job_is_cancelled_at_work_and_while_it_waits() {
    let (_process, mut front_end) = start(&[]);
    let job = endless(&mut front_end, CONTEXT);
    submit(&mut front_end, &job);
    wait_until_it_counts(&front_end);
    let cancel =
        |front_end: &mut FrontEnd, cookie| front_end.ask(ControlKind::JobCancel, cookie, 0);
    assert_eq!(cancel(&mut front_end, job.cookie.get()), Status::Ok);
    front_end.post_report_buffers(1);
    let report = front_end.report();
    is_end_of(&report, &job, Status::Cancelled);
    assert_eq!(report.amount.get(), counter(&front_end));
    stands_still(&front_end);

    let job = fill(&front_end, BASE + PAGE);
    submit(&mut front_end, &job);
    front_end.post_report_buffers(2);
    let fault = front_end.report();
    assert_eq!(fault.kind, ReportKind::Fault as u8);
    assert_eq!(cancel(&mut front_end, job.cookie.get()), Status::Ok);
    is_end_of(&front_end.report(), &job, Status::Cancelled);
    let late = front_end.change(CONTEXT, &[MapEntry::resume(fault.value.get())]);
    assert_eq!(late.status(), Status::BadFault);

    // The job may have ended just now, so a cookie without a job is no error.
    assert_eq!(cancel(&mut front_end, job.cookie.get()), Status::Ok);
    assert_eq!(cancel(&mut front_end, u64::MAX), Status::Ok);
}

#[test]
fn a_context_takes_its_jobs_with_it_and_no_others() {
    let (_process, mut front_end) = start(&["--executors", "2"]);
    create(&mut front_end, CONTEXT + 1);
    let other = front_end.job(
        JobKind::Fill,
        JobFlags::default(),
        CONTEXT + 1,
        &[BASE, 8, 1],
    );
    submit(&mut front_end, &other);
    front_end.post_report_buffers(4);
    let fault = front_end.report();
    assert_eq!(fault.cookie, other.cookie);
    let working = endless(&mut front_end, CONTEXT);
    submit(&mut front_end, &working);
    wait_until_it_counts(&front_end);
    let status = front_end.ask(ControlKind::ContextDestroy, CONTEXT.into(), 0);
    let at_once = counter(&front_end);
    assert_eq!(status, Status::Ok);
    stands_still(&front_end);
    assert_eq!(counter(&front_end), at_once, "written after the answer");
    is_end_of(&front_end.report(), &working, Status::Cancelled);
    let answered = front_end.change(
        CONTEXT + 1,
        &[
            MapEntry::map(BASE, PAGE, DATA + PAGE, ALL, 12),
            MapEntry::resume(fault.value.get()),
        ],
    );
    assert_eq!(answered.status(), Status::Ok);
    is_end_of(&front_end.report(), &other, Status::Ok);
    let again = front_end.submit_job(&working);
    assert_eq!(again.status(), Status::BadContext);
}

#[test]
fn reports_wait_for_buffers_and_none_is_lost() {
    let (process, mut front_end) = start(&["--max-jobs", "8"]);
    map(&mut front_end, &[MapEntry::map(BASE, PAGE, DATA, ALL, 12)]);
    let mut jobs = Vec::new();
    for _ in 0..8 {
        let job = fill(&front_end, BASE);
        submit(&mut front_end, &job);
        jobs.push(job.cookie);
    }
    // All of them are done, and the room for jobs is taken until the driver knows.
    let started = Instant::now();
    loop {
        let stats = process.command_ok(r#"{"command":"stats"}"#);
        let jobs = &stats["stats"]["jobs"];
        assert_eq!(jobs["present"], 8);
        if jobs["waiting_reports"] == 8 {
            break;
        }
        assert!(started.elapsed() < HANG, "{stats}");
    }
    let ninth = fill(&front_end, BASE);
    assert_eq!(front_end.submit_job(&ninth).status(), Status::Busy);
    let mut ended = Vec::new();
    for _ in 0..4 {
        front_end.post_report_buffers(2);
        for _ in 0..2 {
            let report = front_end.report();
            assert_eq!(end_status(&report), Status::Ok);
            ended.push(report.cookie);
        }
    }
    ended.sort_by_key(|cookie| cookie.get());
    assert_eq!(ended, jobs);
    submit(&mut front_end, &ninth);
    front_end.post_report_buffers(1);
    is_end_of(&front_end.report(), &ninth, Status::Ok);
}

#[test]
fn a_buffer_that_is_too_short_or_nowhere_costs_no_report() {
    let (_process, mut front_end) = start(&[]);
    map(&mut front_end, &[MapEntry::map(BASE, PAGE, DATA, ALL, 12)]);
    let job = fill(&front_end, BASE);
    submit(&mut front_end, &job);
    let queue = usize::from(front_end.report_queue());
    for buffer in [(DATA + PAGE, 63), (u64::MAX - 100, 64)] {
        let ring = &mut front_end.rings[queue];
        ring.submit(&front_end.guest, &[], &[buffer]);
        ring.kick();
        let used = ring.wait(&front_end.guest);
        assert_eq!(used.len, 0, "{buffer:?}");
    }
    front_end.post_report_buffers(1);
    is_end_of(&front_end.report(), &job, Status::Ok);
}

#[test]
fn a_new_session_knows_no_old_job() {
    let (_process, mut front_end) = start(&["--executors", "2"]);
    let working = endless(&mut front_end, CONTEXT);
    submit(&mut front_end, &working);
    let waiting = fill(&front_end, BASE + PAGE);
    submit(&mut front_end, &waiting);
    wait_until_it_counts(&front_end);
    open(&mut front_end);
    stands_still(&front_end);
    // Neither an end nor a fault of before is reported, and the number of the fault begins anew.
    front_end.post_report_buffers(2);
    let job = fill(&front_end, BASE);
    submit(&mut front_end, &job);
    let fault = front_end.report();
    assert_eq!(fault.cookie, job.cookie);
    assert_eq!(fault.value.get(), 1);
    let stale = front_end.submit_job(&working);
    assert_eq!(stale.status(), Status::StaleGeneration);
}

#[test]
fn stopped_queues_hold_jobs_and_started_ones_let_them_go_on() {
    let (_process, mut front_end) = start(&["--executors", "2"]);
    let working = endless(&mut front_end, CONTEXT);
    submit(&mut front_end, &working);
    wait_until_it_counts(&front_end);
    // What QEMU does when its user says "stop" …
    let bases: Vec<u32> = (0..front_end.rings.len())
        .map(|queue| front_end.frontend.get_vring_base(queue).expect("a base"))
        .collect();
    stands_still(&front_end);
    // … and "cont".
    for (queue, base) in bases.into_iter().enumerate() {
        front_end.continue_ring(queue, base as u16);
    }
    wait_until_it_counts(&front_end);
    assert_eq!(
        front_end.ask(ControlKind::JobCancel, working.cookie.get(), 0),
        Status::Ok
    );
    front_end.post_report_buffers(1);
    is_end_of(&front_end.report(), &working, Status::Cancelled);
}

#[test]
fn a_pause_holds_jobs() {
    let (process, mut front_end) = start(&[]);
    let working = endless(&mut front_end, CONTEXT);
    submit(&mut front_end, &working);
    wait_until_it_counts(&front_end);
    process.command_ok(r#"{"command":"pause"}"#);
    stands_still(&front_end);
    process.command_ok(r#"{"command":"resume"}"#);
    wait_until_it_counts(&front_end);
}

#[test]
fn a_reset_ends_everything() {
    let (process, mut front_end) = start(&[]);
    let working = endless(&mut front_end, CONTEXT);
    submit(&mut front_end, &working);
    wait_until_it_counts(&front_end);
    front_end.reboot();
    front_end.forget_report_buffers();
    stands_still(&front_end);
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(stats["stats"]["jobs"]["present"], 0);
    open(&mut front_end);
    map(&mut front_end, &[MapEntry::map(BASE, PAGE, DATA, ALL, 12)]);
    let report = front_end.run_job(JobKind::Fill, JobFlags::default(), CONTEXT, &[BASE, 8, 1]);
    assert_eq!(end_status(&report), Status::Ok);
}

#[test]
fn a_generation_that_is_renewed_ends_everything() {
    let (process, mut front_end) = start(&[]);
    let working = endless(&mut front_end, CONTEXT);
    submit(&mut front_end, &working);
    wait_until_it_counts(&front_end);
    process.command_ok(r#"{"command":"renew"}"#);
    stands_still(&front_end);
    assert_eq!(front_end.submit_job(&working).status(), Status::NoSession);
}

#[test]
fn memory_that_goes_takes_the_jobs_on_it_with_it() {
    let (_process, mut front_end) = start(&["--executors", "2"]);
    let working = endless(&mut front_end, CONTEXT);
    submit(&mut front_end, &working);
    // The third region begins at 4 GiB.
    let away = MapEntry::map(BASE + PAGE, PAGE, 1 << 32, ALL, 12);
    map(&mut front_end, &[away]);
    (front_end.guest).write(1 << 32, &(BASE + PAGE).to_le_bytes());
    let doomed = front_end.job(
        JobKind::Walk,
        JobFlags::default(),
        CONTEXT,
        &[BASE + PAGE, 0, u64::MAX, 8],
    );
    submit(&mut front_end, &doomed);
    let region = front_end.guest.regions().pop().expect("three regions");
    front_end
        .frontend
        .remove_mem_region(&region)
        .expect("removed");
    front_end.post_report_buffers(1);
    let report = front_end.report();
    is_end_of(&report, &doomed, Status::BadGuestAddress);
    assert_eq!(report.address.get(), BASE + PAGE);
    wait_until_it_counts(&front_end);
}

#[test]
fn poisoned_device_memory_ends_a_job() {
    let (process, mut front_end) = start(&[]);
    map(
        &mut front_end,
        &[MapEntry::map(BASE, 8 * PAGE, 0, DEVICE, 12)],
    );
    process.command_ok(
        r#"{"command":"fault-add","fault":{"action":"poison","start":8192,"length":4096}}"#,
    );
    let crc = [BASE, 8 * PAGE, 0];
    let report = front_end.run_job(JobKind::Crc32c, JobFlags::default(), CONTEXT, &crc);
    assert_eq!(end_status(&report), Status::Poison);
    // What was read before it is not known to end at the poison: bytes are read in larger pieces.
    let done = report.amount.get();
    assert_eq!(report.address.get(), BASE + done);
    assert!(done <= 2 * PAGE, "{done}");
}

#[test]
fn the_process_ends_in_the_middle_of_jobs() {
    let (mut process, mut front_end) = start(&["--executors", "4"]);
    for _ in 0..8 {
        let working = endless(&mut front_end, CONTEXT);
        submit(&mut front_end, &working);
    }
    wait_until_it_counts(&front_end);
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    stands_still(&front_end);
}

#[test]
fn a_front_end_that_goes_takes_its_jobs_with_it() {
    let (process, mut front_end) = start(&[]);
    let working = endless(&mut front_end, CONTEXT);
    submit(&mut front_end, &working);
    wait_until_it_counts(&front_end);
    drop(front_end);
    let mut next = FrontEnd::start(&process.socket(), 1, &Layout::default());
    open(&mut next);
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(stats["stats"]["jobs"]["present"], 0);
    map(
        &mut next,
        &[MapEntry::map(BASE, PAGE, DATA, MapFlags(3), 12)],
    );
    let report = next.run_job(JobKind::Fill, JobFlags::default(), CONTEXT, &[BASE, 8, 1]);
    assert_eq!(end_status(&report), Status::Ok);
}

#[test]
fn a_driver_without_contexts_gets_no_job_done() {
    let process = Process::start(PROGRAM, &["--memory", "16M"]);
    let mask = !Features::CONTEXTS.0;
    let frontend = vhost::vhost_user::Frontend::connect(process.socket(), 19).expect("accepted");
    let mut front_end = FrontEnd::start_on(frontend, 1, &Layout::default(), mask);
    front_end.open();
    let status = front_end.ask(ControlKind::ContextCreate, 1, 0);
    assert_eq!(status, Status::BadOp);
    assert_eq!(front_end.rings.len(), 4);
}
