// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The jobs of a device as threads share them: executors take parts of jobs and put them back, workers take jobs in and
//! deliver reports.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hmm_protocol::{Job, JobFlags, JobKind, Report, Status};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{
    counts::JobsSnapshot,
    parts::parts,
    table::{Answer, Bounds, NewJob, Table, Turn, TurnEnd},
};
use crate::{inject::Faults, layout::Role, mmu::Context};

/// How long executors stay away from jobs that may not run now, before they look again on their own.
const HELD_BACK: Duration = Duration::from_millis(100);

/// Where reports go. Each call of [`Buffers::take`] that says `true` is followed by one of [`Buffers::write`].
pub trait Buffers {
    /// Takes the next buffer; whether there is one.
    fn take(&mut self) -> bool;
    /// Writes the report to the buffer; whether that was possible. The buffer is used up either way.
    fn write(&mut self, report: &Report) -> bool;
    /// Tells the driver what was written.
    fn publish(&mut self);
}

/// What an executor is to do.
pub enum Next {
    /// To work on this.
    Turn(Turn),
    /// To deliver reports.
    Deliver,
    /// To end.
    End,
}

/// All jobs of a device.
///
/// Lock order: the device's gate, then this, then a ring.
pub struct Jobs {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    table: Table,
    /// Executors that found that no job may run now left them alone until then.
    held_until: Option<Instant>,
    ended: bool,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Jobs")
            .field(&self.snapshot())
            .finish()
    }
}

impl Jobs {
    /// No job.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            state: Mutex::new(State {
                table: Table::new(bounds),
                held_until: None,
                ended: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Accepts `job`, which came on `queue`, is valid and of this kind. Injected faults may want something of it.
    ///
    /// # Errors
    /// `Busy`: there is no room, or a job that has not ended has the cookie. `BadOp`: this device has no such jobs.
    pub fn submit(
        &self,
        job: &Job,
        kind: JobKind,
        context: Arc<Context>,
        queue: Role,
        faults: &Faults,
    ) -> Result<(), Status> {
        // Taken once: a program's limit of time and the time that its report gives count from the same moment.
        let accepted = Instant::now();
        // Outside the lock: a program may have many parts.
        let parts = parts(kind, job, accepted);
        if parts.is_empty() {
            return Err(Status::BadOp);
        }
        let job = NewJob {
            kind,
            flags: JobFlags(job.flags),
            cookie: job.cookie.get(),
            context,
            parts,
            wishes: faults.job(queue, kind),
        };
        self.state.lock().table.accept(job, accepted)?;
        self.changed.notify_one();
        Ok(())
    }

    /// Answers page fault `fault` of a job of context `context`.
    ///
    /// # Errors
    /// `BadFault`: no such fault waits for an answer.
    pub fn answer(&self, context: u32, fault: u64, answer: Answer) -> Result<(), Status> {
        self.change(|table| table.answer(context, fault, answer, Instant::now()))
    }

    /// Ends the job with this cookie with `Cancelled`. If there is none it may have ended just now, so that is no error.
    pub fn cancel(&self, cookie: u64) {
        self.change(|table| table.cancel(cookie, Instant::now()));
    }

    /// Ends all jobs of context `context`, which was destroyed, with `Cancelled`.
    pub fn end_context(&self, context: u32) {
        self.change(|table| table.end_context(context, Instant::now()));
    }

    /// Ends all jobs without a report: the session is over. When this returns, no report of them is written any more. Destroy
    /// the contexts as well, so that executors which are not back yet touch no memory.
    pub fn end_all(&self) {
        let ended = self.state.lock().table.clear();
        // Outside the lock: there may be many.
        drop(ended);
    }

    /// Wakes an executor if `change` left something to do.
    fn change<R>(&self, change: impl FnOnce(&mut Table) -> R) -> R {
        let mut state = self.state.lock();
        let changed = change(&mut state.table);
        drop(state);
        self.changed.notify_one();
        changed
    }

    /// What an executor is to do next. It waits for that.
    pub fn next(&self) -> Next {
        let mut state = self.state.lock();
        loop {
            if state.ended {
                return Next::End;
            }
            let now = Instant::now();
            state.table.expire(now);
            if state.table.take_fresh() {
                return Next::Deliver;
            }
            if state.held_until.is_some_and(|until| until <= now) {
                state.held_until = None;
            }
            if state.held_until.is_none()
                && let Some(turn) = state.table.next()
            {
                if state.table.has_ready() {
                    self.changed.notify_one();
                }
                return Next::Turn(turn);
            }
            let held_until = (state.held_until).filter(|_| state.table.has_ready());
            match state
                .table
                .next_deadline()
                .into_iter()
                .chain(held_until)
                .min()
            {
                Some(until) => {
                    self.changed.wait_until(&mut state, until);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// What is to be done next, for a caller that does not wait.
    pub fn try_next(&self) -> Option<Turn> {
        let mut state = self.state.lock();
        state.table.expire(Instant::now());
        state.table.next()
    }

    /// Takes a part of a job back from an executor. Returns whether there are reports to be delivered.
    pub fn put_back(&self, turn: Turn, ended: TurnEnd) -> bool {
        let mut state = self.state.lock();
        state.table.put_back(turn, ended, Instant::now());
        state.table.take_fresh()
    }

    /// No job may run now: the queues are stopped, or the device is paused. [`resume`](Self::resume) says when they may again.
    pub fn hold(&self) {
        self.state.lock().held_until = Some(Instant::now() + HELD_BACK);
    }

    /// Jobs may run again, perhaps.
    pub fn resume(&self) {
        let was_held = self.state.lock().held_until.take().is_some();
        if was_held {
            self.changed.notify_all();
        }
    }

    /// Whether reports wait for buffers.
    pub fn has_reports(&self) -> bool {
        self.state.lock().table.has_reports()
    }

    /// Delivers reports to `buffers` as long as there are both. Injected `faults` are obeyed. Returns whether reports are left.
    pub fn deliver(&self, faults: &Faults, buffers: &mut dyn Buffers) -> bool {
        // Held to the end: after `end_all` the driver must not see a report of before.
        let mut state: MutexGuard<'_, State> = self.state.lock();
        let table = &mut state.table;
        table.take_fresh();
        let deadline = table.next_deadline();
        let left = loop {
            let Some((report, wanted)) = table.next_report(|kind| faults.report(kind)) else {
                break false;
            };
            let now = Instant::now();
            if !wanted.delay.is_zero() {
                table.put_off(wanted.delay, now);
                continue;
            }
            if wanted.drop {
                table.delivered(&report, &wanted, now);
                continue;
            }
            if !buffers.take() {
                break true;
            }
            if buffers.write(&report) {
                table.delivered(&report, &wanted, now);
            }
        };
        buffers.publish();
        // Some executor must know when to look next.
        let is_sooner = table
            .next_deadline()
            .is_some_and(|next| deadline.is_none_or(|known| next < known));
        drop(state);
        if is_sooner {
            self.changed.notify_one();
        }
        left
    }

    /// Makes all executors end.
    pub fn stop(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// The counters now.
    pub fn snapshot(&self) -> JobsSnapshot {
        self.state.lock().table.snapshot()
    }

    /// Sets every counter to zero.
    pub fn reset_counts(&self) {
        self.state.lock().table.reset_counts();
    }
}
