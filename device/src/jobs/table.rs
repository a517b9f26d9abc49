// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table of accepted jobs: a state machine without locks, threads or memory.
//!
//! A job has parts, of which each is in one [`Phase`]. A part that misses an address waits for the answer to its page fault and
//! occupies no executor. The first end of a part that is not `Ok` is the end of its job; the parts that run at that moment
//! are told to stop, and when the last of them is back, the end is reported. A job leaves the table when the driver has
//! its end.

mod entry;
mod faults;
mod late;
mod reports;
#[cfg(test)]
mod tests;
mod waiting;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hmm_protocol::Status;

pub(super) use self::entry::NewJob;
use self::{
    entry::{Entry, Part, Phase, Serial},
    waiting::{Fault, Late, Pending, Waiting},
};
use super::{
    counts::{Counts, JobsSnapshot},
    report::{self, Outcome},
    work::{End, Step, Work},
};
use crate::mmu::{Context, MissReason};

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
        let (kind, cookie, wishes) = (job.kind, job.cookie, job.wishes);
        if self.jobs.len() >= self.bounds.max_jobs as usize || self.by_cookie.contains_key(&cookie)
        {
            return Err(Status::Busy);
        }
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let entry = Entry::new(job, now);
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

    /// Whether a part waits for an executor.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
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
