// SPDX-License-Identifier: GPL-2.0-only

//! Jobs that the device has accepted, or is about to.

use hmm_protocol::{
    Report,
    Status, //
};
use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sync::{
        Arc,
        CondVar,
        CondVarTimeoutResult,
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// How often it is looked whether a job that was cancelled is given up, milliseconds.
const LOOK_MS: u32 = 100;

/// What came of a job.
#[derive(Clone, Copy)]
pub(crate) struct JobEnd {
    /// `Ok`, or why it ended.
    pub(crate) status: Status,
    /// As the kind of the job says.
    pub(crate) result: u64,
    /// The first address that could not be accessed, or 0.
    pub(crate) address: u64,
    /// Of a program, or 0.
    pub(crate) program_counter: u64,
    /// What was done: bytes, words, nodes, pages or instructions.
    pub(crate) amount: u64,
    /// From acceptance to the end, as the device says, nanoseconds.
    pub(crate) device_ns: u64,
    /// Device faults of the job.
    pub(crate) faults: u32,
}

impl JobEnd {
    /// The end of a job without a report.
    pub(crate) fn without_report(status: Status) -> Self {
        Self {
            status,
            result: 0,
            address: 0,
            program_counter: 0,
            amount: 0,
            device_ns: 0,
            faults: 0,
        }
    }

    /// The end that the device reports; `None` if it makes no sense.
    pub(crate) fn reported(report: &Report) -> Option<Self> {
        let status = Status::from_wire(report.status)?;
        Some(Self {
            status: Some(status).filter(|&status| status != Status::NotAttempted)?,
            result: report.value.get(),
            address: report.address.get(),
            program_counter: report.program_counter.get(),
            amount: report.amount.get(),
            device_ns: report.device_ns.get(),
            faults: report.faults.get(),
        })
    }
}

/// Is told that a job has ended.
pub(crate) trait JobListener: Send + Sync {
    /// It has. May be called in any task, which must not be kept waiting.
    fn ended(&self);
}

struct State {
    end: Option<JobEnd>,
    /// Since when, and for how long, the end of a job is waited for that was cancelled.
    given_up: Option<(Instant<Monotonic>, Delta)>,
}

/// A job.
#[pin_data]
pub(crate) struct Job {
    cookie: u64,
    context: u32,
    /// How often the device had been reset before.
    resets: u32,
    #[pin]
    state: Mutex<State>,
    #[pin]
    changed: CondVar,
    listener: Option<KBox<dyn JobListener>>,
}

impl Job {
    /// A job that has not ended.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        cookie: u64,
        context: u32,
        resets: u32,
        listener: Option<KBox<dyn JobListener>>,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                cookie,
                context,
                resets,
                state <- new_mutex!(State { end: None, given_up: None }, "contexts::Job::state"),
                changed <- new_condvar!("contexts::Job::changed"),
                listener,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The number by which the device knows it.
    pub(crate) fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Its end, if it has ended.
    pub(crate) fn end(&self) -> Option<JobEnd> {
        self.state.lock().end
    }

    /// Waits for its end, at most `timeout_ms` milliseconds, without a limit if that is `u32::MAX`. `None`:
    /// it has not ended.
    ///
    /// # Errors
    ///
    /// If a signal came, `ERESTARTSYS`, or `EINTR` if there is a limit.
    pub(crate) fn wait(&self, timeout_ms: u32) -> Result<Option<JobEnd>> {
        let mut left = msecs_to_jiffies(timeout_ms);
        let mut state = self.state.lock();
        while state.end.is_none() && left > 0 {
            let most = match state.given_up {
                Some((since, patience)) if since.elapsed() >= patience => {
                    drop(state);
                    self.finish(JobEnd::without_report(Status::Cancelled));
                    return Ok(self.end());
                }
                Some(_) => left.min(msecs_to_jiffies(LOOK_MS)),
                None => left,
            };
            if timeout_ms == u32::MAX && state.given_up.is_none() {
                if self.changed.wait_interruptible(&mut state) {
                    return Err(ERESTARTSYS);
                }
                continue;
            }
            let unused = match self.changed.wait_interruptible_timeout(&mut state, most) {
                CondVarTimeoutResult::Woken { jiffies } => jiffies,
                CondVarTimeoutResult::Timeout => 0,
                CondVarTimeoutResult::Signal { .. } if timeout_ms == u32::MAX => {
                    return Err(ERESTARTSYS);
                }
                CondVarTimeoutResult::Signal { .. } => return Err(EINTR),
            };
            if timeout_ms != u32::MAX {
                left = left.saturating_sub(most.saturating_sub(unused));
            }
        }
        Ok(state.end)
    }

    /// The device was asked to end it. If it does not report that for `patience`, the job counts as ended.
    pub(crate) fn expect_end(&self, patience: Delta) {
        let mut state = self.state.lock();
        state.given_up.get_or_insert((Instant::now(), patience));
        drop(state);
        self.changed.notify_all();
    }

    /// It has ended. The first end counts.
    fn finish(&self, how: JobEnd) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        state.end = Some(how);
        drop(state);
        self.changed.notify_all();
        if let Some(listener) = &self.listener {
            listener.ended();
        }
    }
}

/// All jobs that have not ended.
#[pin_data]
pub(crate) struct Jobs {
    #[pin]
    running: Mutex<RBTree<u64, Arc<Job>>>,
}

impl Jobs {
    /// No jobs.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            running <- new_mutex!(RBTree::new(), "contexts::Jobs::running"),
        })
    }

    /// Whether all jobs have ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.lock().is_empty()
    }

    /// A job is about to be submitted.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn add(&self, job: Arc<Job>) -> Result {
        let node = RBTreeNode::new(job.cookie, job, GFP_KERNEL)?;
        self.running.lock().insert(node);
        Ok(())
    }

    /// A job was not accepted.
    pub(crate) fn remove(&self, job: &Job) {
        let removed = self.running.lock().remove(&job.cookie);
        drop(removed);
    }

    /// The job with this cookie has ended, if there is one.
    pub(crate) fn finish(&self, cookie: u64, end: JobEnd) -> bool {
        let job = self.running.lock().remove(&cookie);
        job.inspect(|job| job.finish(end)).is_some()
    }

    /// All jobs of a context have ended with a status.
    pub(crate) fn finish_context(&self, context: u32, status: Status) {
        self.finish_each(status, |job| job.context == context);
    }

    /// All jobs that were begun before the device was reset for the `resets`th time have ended.
    pub(crate) fn finish_before(&self, resets: u32, status: Status) {
        self.finish_each(status, |job| job.resets != resets);
    }

    /// All jobs have ended with a status.
    pub(crate) fn finish_all(&self, status: Status) {
        self.finish_each(status, |_| true);
    }

    fn finish_each(&self, status: Status, is_meant: impl Fn(&Job) -> bool) {
        let mut next = Some(0);
        while let Some(mut from) = next {
            let mut running = self.running.lock();
            let job = loop {
                let Some(cursor) = running.cursor_lower_bound_mut(&from) else {
                    return;
                };
                let (&cookie, job) = cursor.current();
                next = cookie.checked_add(1);
                if is_meant(job) {
                    let (_, node) = cursor.remove_current();
                    break node.to_key_value().1;
                }
                match next {
                    Some(next) => from = next,
                    None => return,
                }
            };
            drop(running);
            job.finish(JobEnd::without_report(status));
        }
    }
}

#[kunit_tests(virtio_hmm_jobs)]
mod tests {
    use super::*;
    use kernel::sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    };

    struct Count(Arc<Atomic<u32>>);

    impl JobListener for Count {
        fn ended(&self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_job_ends_once() -> Result {
        let count = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let listener: KBox<dyn JobListener> = KBox::new(Count(count.clone()), GFP_KERNEL)?;
        let jobs = KBox::pin_init(Jobs::new(), GFP_KERNEL)?;
        let job = Job::new(7, 1, 0, Some(listener))?;
        jobs.add(job.clone())?;
        assert!(job.wait(0)?.is_none() && job.end().is_none());
        assert!(!jobs.finish(8, JobEnd::without_report(Status::Ok)));
        assert!(jobs.finish(7, JobEnd::without_report(Status::Limit)));
        assert!(!jobs.finish(7, JobEnd::without_report(Status::Ok)));
        assert!(job
            .wait(u32::MAX)?
            .is_some_and(|end| end.status == Status::Limit));
        assert_eq!(count.load(Relaxed), 1);
        Ok(())
    }

    #[test]
    fn a_cancelled_job_ends_without_a_report() -> Result {
        let job = Job::new(7, 1, 0, None)?;
        job.expect_end(Delta::from_millis(3_600_000));
        assert!(job.wait(1)?.is_none());
        // The first time counts.
        job.expect_end(Delta::ZERO);
        assert!(job.wait(1)?.is_none());
        let job = Job::new(8, 1, 0, None)?;
        job.expect_end(Delta::ZERO);
        assert!(job.end().is_none());
        assert!(job
            .wait(u32::MAX)?
            .is_some_and(|end| end.status == Status::Cancelled));
        Ok(())
    }

    #[test]
    fn the_jobs_of_a_context_or_of_before_a_reset_end_together() -> Result {
        let jobs = KBox::pin_init(Jobs::new(), GFP_KERNEL)?;
        let mut all = KVec::new();
        for (cookie, context, resets) in [(1, 0, 0), (2, 1, 0), (3, 0, 1), (u64::MAX, 1, 1)] {
            let job = Job::new(cookie, context, resets, None)?;
            jobs.add(job.clone())?;
            all.push(job, GFP_KERNEL)?;
        }
        let ended = || {
            all.iter()
                .map(|job| job.end().is_some())
                .fold(0, |sum, is| sum * 2 + u32::from(is))
        };
        jobs.finish_before(1, Status::Cancelled);
        assert_eq!(ended(), 0b1100);
        jobs.finish_context(1, Status::Cancelled);
        assert_eq!(ended(), 0b1101);
        jobs.remove(&all[2]);
        jobs.finish_context(0, Status::Cancelled);
        assert_eq!(ended(), 0b1101);
        Ok(())
    }
}
