// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Injected faults of jobs and reports: a device as a driver must survive it.

use std::time::{Duration, Instant};

use hmm_front_end::{DATA, FrontEnd, Process, end_status};
use hmm_protocol::{ControlKind, JobFlags, JobKind, MapEntry, ReportKind, Status};

use crate::{ALL, BASE, CONTEXT, PAGE, map, start};

fn inject(process: &Process, fault: &str) {
    process.command_ok(&format!(r#"{{"command":"fault-add","fault":{fault}}}"#));
}

fn started() -> (Process, FrontEnd) {
    let (process, mut front_end) = start(&["--fault-timeout-ms", "300"]);
    map(&mut front_end, &[MapEntry::map(BASE, PAGE, DATA, ALL, 12)]);
    front_end.guest.write(DATA, b"123456789");
    (process, front_end)
}

fn crc(front_end: &mut FrontEnd) -> hmm_protocol::Report {
    let none = JobFlags::default();
    front_end.run_job(JobKind::Crc32c, none, CONTEXT, &[BASE, 9, 0])
}

/// Nothing is reported for a while.
fn silent(front_end: &mut FrontEnd) {
    std::thread::sleep(Duration::from_millis(50));
    assert!(front_end.poll_report().is_none());
}

#[test]
fn a_job_fails_or_has_a_wrong_result() {
    let (process, mut front_end) = started();
    inject(
        &process,
        r#"{"action":"fail","on":"job","status":"no-memory","nth":1}"#,
    );
    inject(
        &process,
        r#"{"action":"corrupt","on":"job","op":"crc32c","offset":4,"nth":2}"#,
    );
    assert_eq!(end_status(&crc(&mut front_end)), Status::NoMemory);
    assert_eq!(crc(&mut front_end).value.get(), 0xe306_9283 ^ 1 << 4);
    assert_eq!(crc(&mut front_end).value.get(), 0xe306_9283);
}

#[test]
fn a_job_is_late_or_never_ends() {
    let (process, mut front_end) = started();
    inject(
        &process,
        r#"{"action":"delay","on":"job","microseconds":200000,"nth":1}"#,
    );
    inject(&process, r#"{"action":"hang","nth":2}"#);
    let before = Instant::now();
    let report = crc(&mut front_end);
    assert!(before.elapsed() >= Duration::from_millis(200));
    assert!(report.device_ns.get() >= 200_000_000, "{report:?}");
    let none = JobFlags::default();
    let job = front_end.job(JobKind::Crc32c, none, CONTEXT, &[BASE, 9, 0]);
    assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
    front_end.post_report_buffers(1);
    silent(&mut front_end);
    let cookie = job.cookie.get();
    assert_eq!(front_end.ask(ControlKind::JobCancel, cookie, 0), Status::Ok);
    let report = front_end.report();
    assert_eq!(
        (report.cookie, end_status(&report)),
        (job.cookie, Status::Cancelled)
    );
}

#[test]
fn the_end_of_a_job_is_lost_or_late_or_told_twice() {
    let (process, mut front_end) = started();
    for (nth, action) in [
        r#""action":"drop""#,
        r#""action":"delay","microseconds":200000"#,
        r#""action":"duplicate""#,
        r#""action":"cookie""#,
    ]
    .iter()
    .enumerate()
    {
        inject(
            &process,
            &format!(
                r#"{{{action},"on":"report","op":"job-end","nth":{}}}"#,
                nth + 1
            ),
        );
    }
    let none = JobFlags::default();
    let submit = |front_end: &mut FrontEnd| {
        let job = front_end.job(JobKind::Crc32c, none, CONTEXT, &[BASE, 9, 0]);
        assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
        job.cookie.get()
    };
    front_end.post_report_buffers(5);
    submit(&mut front_end);
    silent(&mut front_end);
    let before = Instant::now();
    let late = submit(&mut front_end);
    assert_eq!(front_end.report().cookie.get(), late);
    assert!(before.elapsed() >= Duration::from_millis(200));
    let twice = submit(&mut front_end);
    assert_eq!(front_end.report().cookie.get(), twice);
    assert_eq!(front_end.report().cookie.get(), twice);
    let wrong = submit(&mut front_end);
    assert_eq!(front_end.report().cookie.get(), !wrong);
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(stats["stats"]["jobs"]["present"], 0, "{stats}");
    assert_eq!(stats["stats"]["jobs"]["reports"], 4);
}

#[test]
fn a_fault_that_is_lost_times_out_and_one_that_is_told_twice_is_answered_once() {
    let (process, mut front_end) = started();
    inject(
        &process,
        r#"{"action":"drop","on":"report","op":"fault","nth":1}"#,
    );
    inject(
        &process,
        r#"{"action":"duplicate","on":"report","op":"fault","nth":2}"#,
    );
    let none = JobFlags::default();
    let arguments = [BASE + PAGE, 8, 1];
    let report = front_end.run_job_with(JobKind::Fill, none, CONTEXT, &arguments, |_| {
        panic!("the fault was not lost")
    });
    assert_eq!(end_status(&report), Status::FaultTimeout);
    assert_eq!(report.address.get(), BASE + PAGE);

    let job = front_end.job(JobKind::Fill, none, CONTEXT, &arguments);
    assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
    front_end.post_report_buffers(3);
    let (first, second) = (front_end.report(), front_end.report());
    assert_eq!(first.kind, ReportKind::Fault as u8);
    assert_eq!(first.value, second.value);
    map(
        &mut front_end,
        &[
            MapEntry::map(BASE + PAGE, PAGE, DATA + PAGE, ALL, 12),
            MapEntry::resume(first.value.get()),
        ],
    );
    let again = front_end.change(CONTEXT, &[MapEntry::resume(second.value.get())]);
    assert_eq!(again.status(), Status::BadFault);
    assert_eq!(end_status(&front_end.report()), Status::Ok);
}

#[test]
fn a_stalled_report_queue_loses_nothing() {
    let (process, mut front_end) = started();
    inject(&process, r#"{"action":"stall","queue":"report"}"#);
    let none = JobFlags::default();
    let job = front_end.job(JobKind::Crc32c, none, CONTEXT, &[BASE, 9, 0]);
    assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
    front_end.post_report_buffers(1);
    silent(&mut front_end);
    process.command_ok(r#"{"command":"fault-clear"}"#);
    assert_eq!(front_end.report().cookie, job.cookie);
}
