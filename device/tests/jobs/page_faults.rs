// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Device page faults: each is reported once, and what the driver answers happens.

use std::time::{Duration, Instant};

use hmm_front_end::{DATA, FrontEnd, end_status, pattern};
use hmm_protocol::{
    FaultAccess, Job, JobFlags, JobKind, MapEntry, MapFlags, Report, ReportKind, Status,
};

use crate::{ALL, BASE, BLOCK, CONTEXT, DEVICE, PAGE, create, map, start};

/// Submits a job that must fault, and returns its fault.
fn fault_of(front_end: &mut FrontEnd, job: &Job) -> Report {
    assert_eq!(front_end.submit_job(job).status(), Status::Ok);
    front_end.post_report_buffers(1);
    let report = front_end.report();
    assert_eq!(report.kind, ReportKind::Fault as u8, "{report:?}");
    assert_eq!(report.cookie, job.cookie);
    report
}

fn end_of(front_end: &mut FrontEnd) -> Report {
    front_end.post_report_buffers(1);
    front_end.report()
}

fn fill(front_end: &FrontEnd, at: u64, len: u64) -> Job {
    let flags = JobFlags::default();
    front_end.job(JobKind::Fill, flags, CONTEXT, &[at, len, u64::MAX])
}

/// Maps the page of a fault where the identity says.
fn map_page(fault: &Report, flags: MapFlags) -> Vec<MapEntry> {
    let page = fault.address.get() & !(PAGE - 1);
    vec![
        MapEntry::map(page, PAGE, DATA + (page - BASE), flags, 12),
        MapEntry::resume(fault.value.get()),
    ]
}

#[test]
fn a_job_on_nothing_faults_once_a_page() {
    let (process, mut front_end) = start(&[]);
    let len = 10 * PAGE;
    let bytes = pattern(3, len as usize);
    front_end.guest.write(DATA, &bytes);
    let mut seen = Vec::new();
    let arguments = [BASE + BLOCK / 2, BASE + 100, len - 200];
    let report = front_end.run_job_with(
        JobKind::Copy,
        JobFlags::default(),
        CONTEXT,
        &arguments,
        |fault| {
            seen.push((fault.address.get(), fault.status, fault.value.get()));
            assert!(fault.amount.get() >= 1);
            map_page(fault, ALL)
        },
    );
    assert_eq!(end_status(&report), Status::Ok);
    assert_eq!(report.faults.get(), 20, "one for each page of both ranges");
    assert_eq!(seen.len(), 20);
    let numbers: Vec<u64> = seen.iter().map(|(_, _, number)| *number).collect();
    assert!(
        numbers.is_sorted_by(|a, b| a < b) && numbers[0] > 0,
        "{numbers:?}"
    );
    assert_eq!(seen[0].0, BASE + 100);
    assert_eq!(seen[0].1, FaultAccess::READ.0);
    assert_eq!(seen[1].0, BASE + BLOCK / 2);
    assert_eq!(seen[1].1, FaultAccess::WRITE.0);
    let copied = front_end.guest.read(DATA + BLOCK / 2, len as usize - 200);
    assert!(copied == bytes[100..bytes.len() - 100]);
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    let jobs = &stats["stats"]["jobs"];
    assert_eq!(jobs["faults"], 20, "{stats}");
    assert_eq!(jobs["resumed"], 20);
    assert_eq!(jobs["ends"]["ok"], 1);
    assert_eq!(jobs["present"], 0);
    assert_eq!(jobs["answer"]["count"], 20);
}

#[test]
fn the_first_fault_tells_how_much_is_to_come() {
    let (_process, mut front_end) = start(&[]);
    let job = fill(&front_end, BASE + 8, 3 * BLOCK);
    let fault = fault_of(&mut front_end, &job);
    assert_eq!(fault.address.get(), BASE + 8);
    assert_eq!(fault.amount.get(), 3 * BLOCK);
    map(
        &mut front_end,
        &[
            MapEntry::map(BASE, BLOCK, 0, DEVICE, 21),
            MapEntry::map(BASE + BLOCK, BLOCK, BLOCK, DEVICE, 21),
            MapEntry::resume(fault.value.get()),
        ],
    );
    let fault = end_of(&mut front_end);
    assert_eq!(fault.address.get(), BASE + 2 * BLOCK);
    assert_eq!(fault.amount.get(), BLOCK + 8);
    map(
        &mut front_end,
        &[
            MapEntry::map(BASE + 2 * BLOCK, 2 * BLOCK, 2 * BLOCK, DEVICE, 21),
            MapEntry::resume(fault.value.get()),
        ],
    );
    let report = end_of(&mut front_end);
    assert_eq!(end_status(&report), Status::Ok);
    assert_eq!(report.faults.get(), 2);
}

#[test]
fn a_page_that_may_only_be_read_faults_when_it_is_written() {
    let (_process, mut front_end) = start(&[]);
    let read = MapFlags::READ;
    map(&mut front_end, &[MapEntry::map(BASE, PAGE, DATA, read, 12)]);
    for (kind, access, arguments) in [
        (JobKind::Fill, FaultAccess::WRITE, vec![BASE, 8, 1]),
        (JobKind::AtomicAdd, FaultAccess::ATOMIC, vec![BASE, 1, 1, 8]),
    ] {
        let job = front_end.job(kind, JobFlags::default(), CONTEXT, &arguments);
        let fault = fault_of(&mut front_end, &job);
        assert_eq!(fault.status, access.0, "{kind:?}");
        let flags = if access == FaultAccess::WRITE {
            MapFlags(3)
        } else {
            ALL
        };
        map(&mut front_end, &map_page(&fault, flags));
        assert_eq!(end_status(&end_of(&mut front_end)), Status::Ok);
    }
    let crc = [BASE, 8, 0];
    let report = front_end.run_job(JobKind::Crc32c, JobFlags::default(), CONTEXT, &crc);
    assert_eq!(end_status(&report), Status::Ok);
}

#[test]
fn without_faults_the_first_bad_address_ends_the_job() {
    let (_process, mut front_end) = start(&[]);
    map(&mut front_end, &[MapEntry::map(BASE, PAGE, DATA, ALL, 12)]);
    let read = MapFlags::READ;
    let second = BASE + PAGE;
    map(
        &mut front_end,
        &[MapEntry::map(second, PAGE, DATA, read, 12)],
    );
    let flags = JobFlags::NO_FAULT;
    for (kind, arguments, status, address, amount) in [
        (
            JobKind::Fill,
            vec![BASE + 10, 2 * PAGE, 0],
            Status::Forbidden,
            second,
            PAGE - 10,
        ),
        (
            JobKind::Crc32c,
            vec![BASE + 10, 4 * PAGE, 0],
            Status::Unmapped,
            BASE + 2 * PAGE,
            2 * PAGE - 10,
        ),
        (
            JobKind::AtomicAdd,
            vec![BASE + PAGE - 8, 2, 1, 8],
            Status::Forbidden,
            second,
            1,
        ),
        (
            JobKind::Copy,
            vec![BASE, BASE + BLOCK, PAGE],
            Status::Unmapped,
            BASE + BLOCK,
            0,
        ),
        (
            JobKind::Walk,
            vec![BASE + BLOCK, 0, 9, 8],
            Status::Unmapped,
            BASE + BLOCK,
            0,
        ),
    ] {
        let report = front_end.run_job(kind, flags, CONTEXT, &arguments);
        assert_eq!(end_status(&report), status, "{kind:?}");
        assert_eq!(report.address.get(), address, "{kind:?}");
        assert_eq!(report.amount.get(), amount, "{kind:?}");
        assert_eq!(report.faults.get(), 0);
    }
}

#[test]
fn a_failed_fault_ends_its_job_with_its_status_and_address() {
    let (_process, mut front_end) = start(&[]);
    for status in [
        Status::Unmapped,
        Status::Forbidden,
        Status::Poison,
        Status::NoMemory,
    ] {
        let job = fill(&front_end, BASE + 40, PAGE);
        let fault = fault_of(&mut front_end, &job);
        map(&mut front_end, &[MapEntry::fail(fault.value.get(), status)]);
        let report = end_of(&mut front_end);
        assert_eq!(end_status(&report), status);
        assert_eq!(report.address.get(), BASE + 40);
        assert_eq!((report.amount.get(), report.faults.get()), (0, 1));
    }
}

#[test]
fn only_a_fault_that_waits_can_be_answered() {
    let (_process, mut front_end) = start(&[]);
    create(&mut front_end, CONTEXT + 1);
    let resume = |front_end: &mut FrontEnd, context, number| {
        front_end
            .change(context, &[MapEntry::resume(number)])
            .status()
    };
    assert_eq!(resume(&mut front_end, CONTEXT, 1), Status::BadFault);
    let job = fill(&front_end, BASE, PAGE);
    assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
    // Nothing was told: the report has no buffer. Numbers begin at 1.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(resume(&mut front_end, CONTEXT, 1), Status::BadFault);
    front_end.post_report_buffers(1);
    let fault = front_end.report();
    let number = fault.value.get();
    assert_eq!(number, 1);
    for (context, number) in [
        (CONTEXT + 1, 1),
        (CONTEXT, 0),
        (CONTEXT, 2),
        (CONTEXT, u64::MAX),
    ] {
        assert_eq!(resume(&mut front_end, context, number), Status::BadFault);
    }
    map(&mut front_end, &map_page(&fault, ALL));
    assert_eq!(resume(&mut front_end, CONTEXT, number), Status::BadFault);
    assert_eq!(end_status(&end_of(&mut front_end)), Status::Ok);
}

#[test]
fn a_fault_that_is_not_answered_ends_its_job_in_time() {
    let (process, mut front_end) = start(&["--fault-timeout-ms", "200"]);
    assert_eq!(front_end.config().fault_timeout_ms.get(), 200);
    let job = fill(&front_end, BASE + 16, PAGE);
    assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
    // The time begins when the driver is told.
    std::thread::sleep(Duration::from_millis(400));
    front_end.post_report_buffers(2);
    let fault = front_end.report();
    assert_eq!(fault.kind, ReportKind::Fault as u8);
    let told = Instant::now();
    let report = front_end.report();
    assert!(
        told.elapsed() >= Duration::from_millis(150),
        "{:?}",
        told.elapsed()
    );
    assert_eq!(end_status(&report), Status::FaultTimeout);
    assert_eq!(report.address.get(), BASE + 16);
    let late = front_end.change(CONTEXT, &[MapEntry::resume(fault.value.get())]);
    assert_eq!(late.status(), Status::BadFault);
    let stats = process.command_ok(r#"{"command":"stats"}"#);
    assert_eq!(stats["stats"]["jobs"]["timed_out"], 1);
}

#[test]
fn a_driver_that_only_resumes_stalls_the_job() {
    let (_process, mut front_end) = start(&[]);
    let mut faults = 0;
    let report = front_end.run_job_with(
        JobKind::Fill,
        JobFlags::default(),
        CONTEXT,
        &[BASE + 24, PAGE, 0],
        |fault| {
            faults += 1;
            vec![MapEntry::resume(fault.value.get())]
        },
    );
    assert_eq!(end_status(&report), Status::Stalled);
    assert_eq!(report.address.get(), BASE + 24);
    assert!(faults >= 99, "{faults}");
    assert_eq!(report.faults.get(), faults);
}

#[test]
fn a_job_that_waits_occupies_no_executor() {
    let (_process, mut front_end) = start(&["--executors", "1"]);
    front_end.post_report_buffers(20);
    let waiting: Vec<Job> = (0..10)
        .map(|index| fill(&front_end, BASE + index * PAGE, PAGE))
        .collect();
    for job in &waiting {
        assert_eq!(front_end.submit_job(job).status(), Status::Ok);
    }
    let faults: Vec<Report> = waiting.iter().map(|_| front_end.report()).collect();
    map(
        &mut front_end,
        &[MapEntry::map(BASE + BLOCK, PAGE, DATA, ALL, 12)],
    );
    let job = fill(&front_end, BASE + BLOCK, PAGE);
    assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
    let report = front_end.report();
    assert_eq!(report.cookie, job.cookie);
    assert_eq!(end_status(&report), Status::Ok);
    // All of them are answered in one batch, in another order.
    let entries: Vec<MapEntry> = faults
        .iter()
        .rev()
        .flat_map(|fault| map_page(fault, ALL))
        .collect();
    map(&mut front_end, &entries);
    front_end.post_report_buffers(1);
    for _ in &waiting {
        assert_eq!(end_status(&front_end.report()), Status::Ok);
    }
}
