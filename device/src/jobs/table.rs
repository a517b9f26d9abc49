// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table of accepted jobs: a state machine without locks, threads or memory.
//!
//! A job has parts, of which each is in one [`Phase`]. A part that misses an address waits for the answer to its page fault and
//! occupies no executor. The first end of a part that is not `Ok` is the end of its job; the parts that run at that moment
//! are told to stop, and when the last of them is back, the end is reported. A job leaves the table when the driver has
//! its end.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hmm_protocol::{JobFlags, JobKind, Report, ReportKind, Status};
use zerocopy::byteorder::little_endian::U64;

use super::{
    counts::{Counts, JobsSnapshot},
    report::{self, Of, Outcome},
    work::{End, Step, Work},
};
use crate::{
    inject::{JobFaults, ReportFaults},
    mmu::{Context, Miss, MissReason},
};

/// A job whose faults are all answered and that makes no progress ends after so many, if they took [`STALL_TIME`] or more.
const STALL_FAULTS: u32 = 100;
/// The least time in which faults without progress end a job. An honest driver under a storm of invalidations needs some.
const STALL_TIME: Duration = Duration::from_secs(1);

/// What bounds the table.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most jobs that were accepted and whose end was not reported yet.
    pub max_jobs: u32,
    /// Time after which a job ends whose page fault was reported and not answered.
    pub fault_timeout: Duration,
}

/// The answer to a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The job tries its access again.
    Resume,
    /// The job ends with this status.
    Fail(Status),
}

/// Names a job for ever, other than its cookie.
type Serial = u64;

/// A job as it is accepted.
pub(super) struct NewJob {
    pub(super) kind: JobKind,
    pub(super) flags: JobFlags,
    pub(super) cookie: u64,
    pub(super) context: Arc<Context>,
    /// At least one.
    pub(super) parts: Vec<Box<dyn Work>>,
    /// What injected faults want of it.
    pub(super) wishes: JobFaults,
}

/// Where a part of a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It waits for an executor, or until it may start.
    Ready,
    /// An executor works on it.
    Running,
    /// It waits for the answer to this page fault.
    Faulted(u64),
    /// It is over.
    Ended,
}

struct Part {
    /// Not while an executor works on it.
    work: Option<Box<dyn Work>>,
    phase: Phase,
    /// What it had done when it last faulted, since when, and how many faults ago.
    stall: Option<(u64, Instant, u32)>,
}

struct Entry {
    of: Of,
    kind: JobKind,
    no_fault: bool,
    context: Arc<Context>,
    accepted: Instant,
    faults: u32,
    parts: Vec<Part>,
    /// How the job ends, when all parts are back.
    end: Option<End>,
    stop: Arc<AtomicBool>,
    wishes: JobFaults,
    /// The report of its end, once that is certain.
    report: Option<Report>,
}

struct Fault {
    serial: Serial,
    part: usize,
    report: Report,
    /// When the driver got the report.
    told: Option<Instant>,
}

/// A report to come.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Fault(u64),
    End(Serial),
    /// One more of a report, because an injected fault says so.
    Again(Report),
}

/// A report that waits for a buffer, with what injected faults want of it once they were asked.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    pending: Pending,
    wanted: Option<ReportFaults>,
}

impl From<Pending> for Waiting {
    fn from(pending: Pending) -> Self {
        Self {
            pending,
            wanted: None,
        }
    }
}

/// What happens later, because an injected fault says so.
#[derive(Clone, Copy, Debug)]
enum Late {
    Start(Serial, usize),
    Report(Waiting),
}

/// A part of a job, on its way through an executor.
pub struct Turn {
    serial: Serial,
    part: usize,
    /// What to do.
    pub work: Box<dyn Work>,
    /// Where.
    pub context: Arc<Context>,
    /// The job has ended meanwhile: leave.
    pub stop: Arc<AtomicBool>,
}

/// What became of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    /// It came so far.
    Step(Step),
    /// Its context was destroyed.
    Destroyed,
}

/// The table.
pub(super) struct Table {
    bounds: Bounds,
    jobs: HashMap<Serial, Entry>,
    by_cookie: HashMap<u64, Serial>,
    ready: VecDeque<(Serial, usize)>,
    faults: HashMap<u64, Fault>,
    /// When reported faults time out.
    deadlines: BTreeSet<(Instant, u64)>,
    reports: VecDeque<Waiting>,
    late: Vec<(Instant, Late)>,
    /// Whether there is a report that nothing tried to deliver yet.
    fresh: bool,
    next_serial: Serial,
    next_fault: u64,
    counts: Counts,
}

impl Table {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            jobs: HashMap::new(),
            by_cookie: HashMap::new(),
            ready: VecDeque::new(),
            faults: HashMap::new(),
            deadlines: BTreeSet::new(),
            reports: VecDeque::new(),
            late: Vec::new(),
            fresh: false,
            next_serial: 1,
            next_fault: 1,
            counts: Counts::default(),
        }
    }

    /// Accepts `job`.
    ///
    /// # Errors
    /// `Busy`: there is no room, or a job that has not ended has the cookie.
    pub(super) fn accept(&mut self, job: NewJob, now: Instant) -> Result<(), Status> {
        let NewJob {
            kind,
            flags,
            cookie,
            context,
            parts,
            wishes,
        } = job;
        if self.jobs.len() >= self.bounds.max_jobs as usize || self.by_cookie.contains_key(&cookie)
        {
            return Err(Status::Busy);
        }
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let entry = Entry {
            of: Of {
                context: context.number(),
                cookie,
            },
            kind,
            no_fault: flags.contains(JobFlags::NO_FAULT),
            context,
            accepted: now,
            faults: 0,
            parts: parts
                .into_iter()
                .map(|work| Part {
                    work: Some(work),
                    phase: Phase::Ready,
                    stall: None,
                })
                .collect(),
            end: None,
            stop: Arc::default(),
            wishes,
            report: None,
        };
        let count = entry.parts.len();
        self.jobs.insert(serial, entry);
        self.by_cookie.insert(cookie, serial);
        self.counts.accept(kind);
        if let Some(status) = wishes.fail {
            self.end(serial, End::failed(status, 0), now);
        } else if !wishes.hang {
            for part in 0..count {
                match wishes.delay {
                    Duration::ZERO => self.ready.push_back((serial, part)),
                    delay => self.late.push((now + delay, Late::Start(serial, part))),
                }
            }
        }
        Ok(())
    }

    /// Takes the next part that an executor can work on.
    pub(super) fn next(&mut self) -> Option<Turn> {
        while let Some((serial, part)) = self.ready.pop_front() {
            let Some(entry) = self.jobs.get_mut(&serial) else {
                continue;
            };
            let Some(Part { work, phase, .. }) = entry.parts.get_mut(part) else {
                continue;
            };
            if *phase != Phase::Ready {
                continue;
            }
            if let Some(work) = work.take() {
                *phase = Phase::Running;
                return Some(Turn {
                    serial,
                    part,
                    work,
                    context: Arc::clone(&entry.context),
                    stop: Arc::clone(&entry.stop),
                });
            }
        }
        None
    }

    /// Takes a part back from its executor.
    pub(super) fn put_back(&mut self, turn: Turn, ended: TurnEnd, now: Instant) {
        let Turn {
            serial,
            part: index,
            work,
            ..
        } = turn;
        // The session is over: nothing is left of its jobs.
        let Some(entry) = self.jobs.get_mut(&serial) else {
            return;
        };
        let Some(part) = entry.parts.get_mut(index) else {
            return;
        };
        let (amount, program_counter) = (work.amount(), work.program_counter());
        part.work = Some(work);
        part.phase = Phase::Ended;
        if entry.end.is_some() {
            self.finish(serial, now);
            return;
        }
        match ended {
            TurnEnd::Destroyed => self.end(serial, End::failed(Status::Cancelled, 0), now),
            TurnEnd::Step(Step::Again) => {
                part.phase = Phase::Ready;
                self.ready.push_back((serial, index));
            }
            TurnEnd::Step(Step::Ended(end)) if end.status != Status::Ok => {
                self.end(serial, end, now);
            }
            TurnEnd::Step(Step::Ended(end)) => {
                if entry.parts.iter().all(|part| part.phase == Phase::Ended) {
                    self.end(serial, end, now);
                }
            }
            TurnEnd::Step(Step::Missed { miss, wanted }) => {
                let fatal = match miss.reason {
                    MissReason::BadTarget => Some(Status::BadGuestAddress),
                    MissReason::Poison => Some(Status::Poison),
                    MissReason::Unmapped if entry.no_fault => Some(Status::Unmapped),
                    MissReason::Forbidden if entry.no_fault => Some(Status::Forbidden),
                    MissReason::Unmapped | MissReason::Forbidden
                        if part.is_stalled(amount, now) =>
                    {
                        Some(Status::Stalled)
                    }
                    MissReason::Unmapped | MissReason::Forbidden => None,
                };
                match fatal {
                    Some(status) => {
                        let end = End {
                            status,
                            address: miss.address,
                            program_counter,
                        };
                        self.end(serial, end, now);
                    }
                    None => self.fault(serial, index, &miss, wanted, program_counter),
                }
            }
        }
    }

    /// A part of a job waits for a page.
    fn fault(
        &mut self,
        serial: Serial,
        index: usize,
        miss: &Miss,
        wanted: u64,
        program_counter: u64,
    ) {
        let Some(entry) = self.jobs.get_mut(&serial) else {
            return;
        };
        let number = self.next_fault;
        // 2^64 faults take longer than any session.
        self.next_fault = number.wrapping_add(1);
        entry.faults = entry.faults.saturating_add(1);
        if let Some(part) = entry.parts.get_mut(index) {
            part.phase = Phase::Faulted(number);
        }
        let fault = report::Fault {
            number,
            access: miss.access,
            address: miss.address,
            wanted,
            program_counter,
        };
        self.faults.insert(
            number,
            Fault {
                serial,
                part: index,
                report: report::fault(entry.of, &fault),
                told: None,
            },
        );
        self.counts.faults = self.counts.faults.wrapping_add(1);
        self.reports.push_back(Pending::Fault(number).into());
        self.fresh = true;
    }

    /// The job ends in this way, as soon as all its parts are back. The first end counts.
    fn end(&mut self, serial: Serial, end: End, now: Instant) {
        let Some(entry) = self.jobs.get_mut(&serial) else {
            return;
        };
        if entry.end.is_some() {
            return;
        }
        entry.end = Some(end);
        entry.stop.store(true, Ordering::Relaxed);
        for part in &mut entry.parts {
            if let Phase::Faulted(number) = part.phase
                && let Some(fault) = self.faults.remove(&number)
                && let Some(told) = fault.told
            {
                self.deadlines
                    .remove(&(told + self.bounds.fault_timeout, number));
            }
            if part.phase != Phase::Running {
                part.phase = Phase::Ended;
            }
        }
        self.finish(serial, now);
    }

    /// Reports the end of a job that ends, if all its parts are back.
    fn finish(&mut self, serial: Serial, now: Instant) {
        let Some(entry) = self.jobs.get_mut(&serial) else {
            return;
        };
        let Some(end) = entry.end else {
            return;
        };
        if (entry.parts.iter()).any(|part| part.phase == Phase::Running) {
            return;
        }
        let works = || entry.parts.iter().filter_map(|part| part.work.as_ref());
        let result = works().next().map_or(0, |work| work.result());
        let amount = works().fold(0u64, |sum, work| sum.saturating_add(work.amount()));
        let outcome = Outcome {
            end,
            result: result ^ entry.wishes.invert,
            amount,
            time: now.saturating_duration_since(entry.accepted),
            faults: entry.faults,
        };
        entry.report = Some(report::end(entry.of, &outcome));
        entry.parts.clear();
        self.counts
            .end(entry.kind, end.status, amount, outcome.time);
        self.reports.push_back(Pending::End(serial).into());
        self.fresh = true;
    }

    /// Ends the job with this cookie with `Cancelled`, unless it has ended.
    pub(super) fn cancel(&mut self, cookie: u64, now: Instant) {
        if let Some(serial) = self.by_cookie.get(&cookie) {
            self.end(*serial, End::failed(Status::Cancelled, 0), now);
        }
    }

    /// Ends all jobs of a context with `Cancelled`.
    pub(super) fn end_context(&mut self, context: u32, now: Instant) {
        let of_context: Vec<Serial> = (self.jobs.iter())
            .filter(|(_, entry)| entry.of.context == context)
            .map(|(serial, _)| *serial)
            .collect();
        for serial in of_context {
            self.end(serial, End::failed(Status::Cancelled, 0), now);
        }
    }

    /// Forgets all jobs without a report, and returns them so that they are dropped elsewhere. Fault numbers begin anew.
    pub(super) fn clear(&mut self) -> impl Sized + use<> {
        for entry in self.jobs.values() {
            entry.stop.store(true, Ordering::Relaxed);
        }
        self.by_cookie.clear();
        self.ready.clear();
        self.faults.clear();
        self.deadlines.clear();
        self.reports.clear();
        self.late.clear();
        self.fresh = false;
        self.next_fault = 1;
        std::mem::take(&mut self.jobs)
    }

    /// Answers page fault `number` of a job of `context`.
    ///
    /// # Errors
    /// `BadFault`: no such fault waits for an answer.
    pub(super) fn answer(
        &mut self,
        context: u32,
        number: u64,
        answer: Answer,
        now: Instant,
    ) -> Result<(), Status> {
        let (serial, part, report) = match self.faults.get(&number) {
            // The driver cannot know the number of a fault that it was not told.
            Some(Fault {
                serial,
                part,
                report,
                told: Some(told),
            }) if report.context.get() == context => {
                self.counts.answer(now.saturating_duration_since(*told));
                self.deadlines
                    .remove(&(*told + self.bounds.fault_timeout, number));
                (*serial, *part, *report)
            }
            _ => return Err(Status::BadFault),
        };
        self.faults.remove(&number);
        match answer {
            Answer::Resume => {
                self.counts.resumed = self.counts.resumed.wrapping_add(1);
                let entry = self.jobs.get_mut(&serial);
                if let Some(waiting) = entry.and_then(|entry| entry.parts.get_mut(part)) {
                    waiting.phase = Phase::Ready;
                    self.ready.push_back((serial, part));
                }
            }
            Answer::Fail(status) => {
                self.counts.failed = self.counts.failed.wrapping_add(1);
                self.end(serial, end_at(status, &report), now);
            }
        }
        Ok(())
    }

    /// Does what is due: ends jobs whose faults were not answered in time, and starts what was to be late.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((deadline, number)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(fault) = self.faults.remove(&number) {
                self.counts.timed_out = self.counts.timed_out.wrapping_add(1);
                let end = end_at(Status::FaultTimeout, &fault.report);
                self.end(fault.serial, end, now);
            }
        }
        if self.late.is_empty() {
            return;
        }
        let (due, late) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|(when, _)| *when <= now);
        self.late = late;
        for (_, what) in due {
            match what {
                Late::Start(serial, part) => self.ready.push_back((serial, part)),
                Late::Report(waiting) => {
                    self.reports.push_back(waiting);
                    self.fresh = true;
                }
            }
        }
    }

    /// When [`expire`](Self::expire) has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let late = self.late.iter().map(|(when, _)| *when);
        let fault = self.deadlines.first().map(|(when, _)| *when);
        late.chain(fault).min()
    }

    /// Whether there are reports that nothing tried to deliver since the last call.
    pub(super) fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// Whether reports wait for buffers.
    pub(super) fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// Whether a part waits for an executor.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next report, and what injected faults want of it; it stays the next one until it is [`delivered`](Self::delivered)
    /// or [`put_off`](Self::put_off).
    pub(super) fn next_report(
        &mut self,
        ask: impl Fn(ReportKind) -> ReportFaults,
    ) -> Option<(Report, ReportFaults)> {
        while let Some(waiting) = self.reports.front_mut() {
            let (report, kind) = match &waiting.pending {
                Pending::Fault(number) => {
                    let fault = self.faults.get(number);
                    (fault.map(|fault| fault.report), ReportKind::Fault)
                }
                Pending::End(serial) => {
                    let entry = self.jobs.get(serial);
                    (entry.and_then(|entry| entry.report), ReportKind::JobEnd)
                }
                Pending::Again(report) => return Some((*report, ReportFaults::default())),
            };
            if let Some(mut report) = report {
                let wanted = *waiting.wanted.get_or_insert_with(|| ask(kind));
                if wanted.wrong_cookie {
                    report.cookie = U64::new(!report.cookie.get());
                }
                return Some((report, wanted));
            }
            // The job of the fault has ended.
            self.reports.pop_front();
        }
        None
    }

    /// The next report, which is this one, is on its way to the driver, or is lost because an injected fault says so.
    pub(super) fn delivered(&mut self, report: &Report, wanted: &ReportFaults, now: Instant) {
        if !wanted.drop {
            self.counts.reports = self.counts.reports.wrapping_add(1);
        }
        match self.reports.pop_front().map(|waiting| waiting.pending) {
            Some(Pending::Fault(number)) => {
                if let Some(fault) = self.faults.get_mut(&number) {
                    fault.told = Some(now);
                    self.deadlines
                        .insert((now + self.bounds.fault_timeout, number));
                }
            }
            Some(Pending::End(serial)) => {
                if let Some(entry) = self.jobs.remove(&serial) {
                    self.by_cookie.remove(&entry.of.cookie);
                }
            }
            Some(Pending::Again(_)) | None => {}
        }
        if wanted.duplicate {
            self.reports.push_front(Pending::Again(*report).into());
        }
    }

    /// Puts the next report off for so long, because an injected fault says so.
    pub(super) fn put_off(&mut self, delay: Duration, now: Instant) {
        if let Some(mut waiting) = self.reports.pop_front() {
            if let Some(wanted) = &mut waiting.wanted {
                wanted.delay = Duration::ZERO;
            }
            self.late.push((now + delay, Late::Report(waiting)));
        }
    }

    /// The counters now.
    pub(super) fn snapshot(&self) -> JobsSnapshot {
        JobsSnapshot {
            present: self.jobs.len() as u64,
            waiting_reports: self.reports.len() as u64,
            open_faults: self.faults.len() as u64,
            ..self.counts.snapshot()
        }
    }

    /// Sets every counter to zero.
    pub(super) fn reset_counts(&mut self) {
        self.counts = Counts::default();
    }
}

impl Part {
    /// Counts a fault of a part that has done so much; whether it is one too many without progress.
    fn is_stalled(&mut self, amount: u64, now: Instant) -> bool {
        match &mut self.stall {
            Some((before, since, count)) if *before == amount => {
                *count = count.saturating_add(1);
                *count >= STALL_FAULTS && now.saturating_duration_since(*since) >= STALL_TIME
            }
            stall => {
                *stall = Some((amount, now, 1));
                false
            }
        }
    }
}

/// An end at the address of a page fault.
fn end_at(status: Status, fault: &Report) -> End {
    End {
        status,
        address: fault.address.get(),
        program_counter: fault.program_counter.get(),
    }
}
