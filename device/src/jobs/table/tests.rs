// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table with parts that do what a test says, and a clock that the test moves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hmm_protocol::{FaultAccess, JobFlags, JobKind, Report, ReportKind, Status};

use super::entry::{STALL_FAULTS, STALL_TIME};
use super::{Answer, Bounds, NewJob, Table, Turn, TurnEnd};
use crate::{
    inject::{JobFaults, ReportFaults},
    jobs::{Access, End, Step, Work},
    mmu::{Budget, Context, Contexts, Miss, MissReason},
};

const CONTEXT: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(10);

/// A part that never runs: the test says what became of it.
struct Puppet(u64);

impl Work for Puppet {
    fn run(&mut self, _memory: &dyn Access) -> Step {
        Step::Again
    }

    fn amount(&self) -> u64 {
        self.0
    }

    fn result(&self) -> u64 {
        self.0 * 100
    }
}

struct Rig {
    table: Table,
    contexts: Contexts,
    now: Instant,
}

impl Rig {
    fn new(max_jobs: u32) -> Self {
        let contexts = Contexts::new(8, Budget::new(1 << 20));
        contexts.create(CONTEXT.into()).expect("a context");
        contexts.create((CONTEXT + 1).into()).expect("a context");
        Self {
            table: Table::new(Bounds {
                max_jobs,
                fault_timeout: TIMEOUT,
            }),
            contexts,
            now: Instant::now(),
        }
    }

    fn context(&self, number: u32) -> Arc<Context> {
        self.contexts.get(number).expect("a context")
    }

    /// A job whose parts have done 1, 2, 3 …
    fn accept(&mut self, cookie: u64, parts: u64) -> Result<(), Status> {
        let job = NewJob {
            kind: JobKind::Program,
            flags: JobFlags::default(),
            cookie,
            context: self.context(CONTEXT),
            parts: (1..=parts)
                .map(|part| Box::new(Puppet(part)) as Box<dyn Work>)
                .collect(),
            wishes: JobFaults::default(),
        };
        self.table.accept(job, self.now)
    }

    fn next(&mut self) -> Turn {
        self.table.next().expect("a part that is ready")
    }

    fn put_back(&mut self, turn: Turn, step: Step) {
        self.table.put_back(turn, TurnEnd::Step(step), self.now);
    }

    /// Puts a part back that missed `address`.
    fn miss(&mut self, turn: Turn, address: u64) {
        let miss = Miss {
            address,
            access: FaultAccess::WRITE,
            reason: MissReason::Unmapped,
        };
        self.put_back(turn, Step::Missed { miss, wanted: 8 });
    }

    /// The next report, delivered.
    fn report(&mut self) -> Option<Report> {
        let (report, wanted) = self.table.next_report(|_| ReportFaults::default())?;
        self.table.delivered(&report, &wanted, self.now);
        Some(report)
    }

    fn end(&mut self) -> Report {
        let report = self.report().expect("a report");
        assert_eq!(report.kind, ReportKind::JobEnd as u8, "{report:?}");
        report
    }

    fn fault(&mut self) -> u64 {
        let report = self.report().expect("a report");
        assert_eq!(report.kind, ReportKind::Fault as u8, "{report:?}");
        report.value.get()
    }

    fn answer(&mut self, fault: u64, answer: Answer) -> Result<(), Status> {
        self.table.answer(CONTEXT, fault, answer, self.now)
    }
}

fn bad(status: Status) -> Step {
    Step::Ended(End {
        status,
        address: 0x1000,
        program_counter: 0x40,
    })
}

#[test]
fn a_job_ends_well_when_its_last_part_does() {
    let mut rig = Rig::new(4);
    rig.accept(7, 3).expect("room");
    let turns: Vec<Turn> = (0..3).map(|_| rig.next()).collect();
    assert!(rig.table.next().is_none());
    for turn in turns {
        assert!(rig.report().is_none());
        rig.put_back(turn, Step::Ended(End::OK));
    }
    let report = rig.end();
    assert_eq!(report.status, Status::Ok.to_wire());
    assert_eq!(report.value.get(), 100, "the result of the first part");
    assert_eq!(report.amount.get(), 1 + 2 + 3);
    assert!(rig.report().is_none());
}

#[test]
fn the_first_bad_end_is_that_of_the_job_and_waits_for_all_parts() {
    let mut rig = Rig::new(4);
    rig.accept(7, 4).expect("room");
    let (first, second, third, fourth) = (rig.next(), rig.next(), rig.next(), rig.next());
    rig.miss(fourth, 0x5000);
    rig.put_back(second, bad(Status::IllegalInstruction));
    assert!(first.stop.load(std::sync::atomic::Ordering::Relaxed));
    assert!(
        rig.report().is_none(),
        "two parts still run, and the fault is moot"
    );
    rig.put_back(first, bad(Status::Misaligned));
    rig.miss(third, 0x6000);
    let report = rig.end();
    assert_eq!(report.status, Status::IllegalInstruction.to_wire());
    assert_eq!(
        (report.address.get(), report.program_counter.get()),
        (0x1000, 0x40)
    );
    assert_eq!(report.faults.get(), 1);
    assert!(rig.report().is_none());
    assert!(rig.table.next().is_none());
}

#[test]
fn a_job_that_is_cancelled_while_it_works_ends_when_it_is_back() {
    let mut rig = Rig::new(4);
    rig.accept(7, 1).expect("room");
    let turn = rig.next();
    rig.table.cancel(7, rig.now);
    assert!(rig.report().is_none());
    assert_eq!(rig.accept(7, 1), Err(Status::Busy));
    rig.put_back(turn, Step::Ended(End::OK));
    assert_eq!(rig.end().status, Status::Cancelled.to_wire());
    rig.accept(7, 1).expect("the cookie is free");
}

#[test]
fn room_is_taken_until_the_end_is_told() {
    let mut rig = Rig::new(2);
    rig.accept(1, 1).expect("room");
    rig.accept(2, 1).expect("room");
    assert_eq!(rig.accept(3, 1), Err(Status::Busy));
    let turn = rig.next();
    rig.put_back(turn, Step::Ended(End::OK));
    assert_eq!(rig.accept(3, 1), Err(Status::Busy));
    rig.end();
    rig.accept(3, 1).expect("room");
}

#[test]
fn a_fault_is_answered_once_and_only_in_its_context() {
    let mut rig = Rig::new(4);
    rig.accept(7, 1).expect("room");
    let turn = rig.next();
    rig.miss(turn, 0x5000);
    assert_eq!(
        rig.answer(1, Answer::Resume),
        Err(Status::BadFault),
        "not told yet"
    );
    let fault = rig.fault();
    assert_eq!(fault, 1);
    let elsewhere = rig
        .table
        .answer(CONTEXT + 1, fault, Answer::Resume, rig.now);
    assert_eq!(elsewhere, Err(Status::BadFault));
    assert!(rig.table.next().is_none());
    assert_eq!(rig.answer(fault, Answer::Resume), Ok(()));
    assert_eq!(rig.answer(fault, Answer::Resume), Err(Status::BadFault));
    let turn = rig.next();
    rig.miss(turn, 0x5000);
    let fault = rig.fault();
    assert_eq!(rig.answer(fault, Answer::Fail(Status::NoMemory)), Ok(()));
    let report = rig.end();
    assert_eq!(report.status, Status::NoMemory.to_wire());
    assert_eq!((report.address.get(), report.faults.get()), (0x5000, 2));
}

#[test]
fn a_fault_times_out_from_when_it_was_told() {
    let mut rig = Rig::new(4);
    rig.accept(7, 1).expect("room");
    let turn = rig.next();
    rig.miss(turn, 0x5000);
    rig.now += 10 * TIMEOUT;
    rig.table.expire(rig.now);
    let fault = rig.fault();
    assert_eq!(rig.table.next_deadline(), Some(rig.now + TIMEOUT));
    rig.now += TIMEOUT - Duration::from_millis(1);
    rig.table.expire(rig.now);
    assert!(rig.report().is_none());
    rig.now += Duration::from_millis(1);
    rig.table.expire(rig.now);
    assert_eq!(rig.end().status, Status::FaultTimeout.to_wire());
    assert_eq!(rig.answer(fault, Answer::Resume), Err(Status::BadFault));
    assert_eq!(rig.table.next_deadline(), None);
}

#[test]
fn a_job_stalls_only_after_many_faults_and_some_time() {
    let mut rig = Rig::new(4);
    rig.accept(7, 1).expect("room");
    for count in 1.. {
        let turn = rig.next();
        rig.miss(turn, 0x5000);
        let report = rig.report().expect("a report");
        if report.kind == ReportKind::JobEnd as u8 {
            assert_eq!(report.status, Status::Stalled.to_wire());
            assert_eq!(report.address.get(), 0x5000);
            assert!(count > 2 * STALL_FAULTS, "{count}");
            return;
        }
        assert!(count < 10 * STALL_FAULTS);
        assert_eq!(rig.answer(report.value.get(), Answer::Resume), Ok(()));
        // The first faults come fast, as in a storm.
        if count > 2 * STALL_FAULTS {
            rig.now += STALL_TIME / 10;
        }
    }
}

#[test]
fn progress_is_no_stall() {
    let mut rig = Rig::new(4);
    rig.accept(7, 1).expect("room");
    for count in 1..5 * u64::from(STALL_FAULTS) {
        let mut turn = rig.next();
        turn.work = Box::new(Puppet(count));
        rig.miss(turn, 0x5000);
        let fault = rig.fault();
        assert_eq!(rig.answer(fault, Answer::Resume), Ok(()));
        rig.now += STALL_TIME;
    }
}

#[test]
fn what_comes_back_after_the_session_is_forgotten() {
    let mut rig = Rig::new(4);
    rig.accept(1, 2).expect("room");
    let (first, second) = (rig.next(), rig.next());
    rig.miss(first, 0x5000);
    let fault = rig.fault();
    drop(rig.table.clear());
    assert!(second.stop.load(std::sync::atomic::Ordering::Relaxed));
    rig.put_back(second, Step::Ended(End::OK));
    assert_eq!(rig.answer(fault, Answer::Resume), Err(Status::BadFault));
    assert!(rig.report().is_none() && rig.table.next().is_none());
    assert_eq!(rig.table.next_deadline(), None);
    let snapshot = rig.table.snapshot();
    assert_eq!(
        (
            snapshot.present,
            snapshot.open_faults,
            snapshot.waiting_reports
        ),
        (0, 0, 0)
    );
    // The next session counts its faults anew.
    rig.accept(1, 1).expect("room");
    let turn = rig.next();
    rig.miss(turn, 0x5000);
    assert_eq!(rig.fault(), 1);
}

#[test]
fn parts_take_turns() {
    let mut rig = Rig::new(4);
    rig.accept(1, 1).expect("room");
    rig.accept(2, 1).expect("room");
    let mut order = Vec::new();
    for _ in 0..6 {
        let turn = rig.next();
        order.push(turn.serial);
        rig.put_back(turn, Step::Again);
    }
    assert_eq!(order[..2], order[2..4]);
    assert_eq!(order[..2], order[4..]);
    assert_ne!(order[0], order[1]);
}
