// SPDX-License-Identifier: GPL-2.0-only

//! Moves that go on while their caller does something else.

use super::state::Session;
use crate::{
    device::DevicePool,
    migration::{
        range::{
            migrate,
            Target, //
        },
        MigrateArgs,
        Tally, //
    },
    policy::{
        ProcessEntry, //
        WatchedSpace,
    },
    sys::{
        address_space::process::Process,
        services::workqueue::WorkQueue, //
    }, //
};
use core::ops::Range;
use hmm_logic::Side;
use hmm_uapi::{
    Direction,
    MigrateFlags,
    PrefetchState,
    WAIT_FOR_EVER, //
};
use kernel::{
    mm::Mm,
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            AtomicFlag, //
        },
        Arc,
        CondVar,
        CondVarTimeoutResult,
        Mutex, //
    },
    time::msecs_to_jiffies, //
};

/// A request to stop is noticed, and the system may go to sleep, after so many bytes.
const STEP: usize = 32 << 20;

/// What is to be moved.
pub(super) struct Job {
    pub(super) process: Process,
    pub(super) known: WatchedSpace,
    /// Keeps the account open that pages are charged to.
    pub(super) entry: Arc<ProcessEntry>,
    pub(super) range: Range<usize>,
    /// `None`: each part to its preferred side.
    pub(super) direction: Option<Direction>,
    pub(super) args: MigrateArgs,
}

/// What came of it.
#[derive(Clone, Copy)]
pub(super) struct Report {
    pub(super) state: PrefetchState,
    pub(super) error: u32,
    pub(super) next: usize,
    pub(super) tally: Tally,
}

/// A move that was begun.
#[pin_data]
pub(super) struct Prefetch {
    #[pin]
    report: Mutex<Report>,
    #[pin]
    ended: CondVar,
    stop: AtomicFlag,
    /// What is left to do, until the end.
    #[pin]
    task: Mutex<Option<Task>>,
}

/// What the steps of a move need.
struct Task {
    /// Between its steps the move does not keep the memory of a process that has ended.
    mm: ARef<Mm>,
    task: ARef<kernel::task::Task>,
    known: WatchedSpace,
    _entry: Arc<ProcessEntry>,
    rest: Range<usize>,
    direction: Option<Direction>,
    args: MigrateArgs,
    pool: Arc<DevicePool>,
    /// Runs the steps. Those of a queue that the system stops when it sleeps, so that nothing goes
    /// to a device that is being put to sleep.
    queue: Arc<WorkQueue>,
}

impl Prefetch {
    /// Begins a move.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn begin(session: &Session, job: Job) -> Result<Arc<Self>> {
        let report = Report {
            state: PrefetchState::Running,
            error: 0,
            next: job.range.start,
            tally: Tally::default(),
        };
        let task = Task {
            mm: ARef::from(&***job.process.mm()),
            task: job.process.task().clone(),
            known: job.known,
            _entry: job.entry,
            rest: job.range,
            direction: job.direction,
            args: job.args,
            pool: session.pool.clone(),
            queue: session.prefetchers.clone(),
        };
        let this = Arc::pin_init(
            try_pin_init!(Self {
                report <- new_mutex!(report, "session::Prefetch::report"),
                ended <- new_condvar!("session::Prefetch::ended"),
                stop: AtomicFlag::new(false),
                task <- new_mutex!(Some(task), "session::Prefetch::task"),
            }? Error),
            GFP_KERNEL,
        )?;
        let begun = this.clone();
        session.prefetchers.spawn(move || Self::go_on(&begun))?;
        Ok(this)
    }

    /// Takes a step, and leaves the next to another turn of the queue, so that others come in
    /// between.
    fn go_on(this: &Arc<Self>) {
        let mut task = this.task.lock();
        let result = loop {
            let Some(left) = (*task).as_mut() else {
                return;
            };
            match this.step(left) {
                Ok(true) if !left.rest.is_empty() => {
                    let next = this.clone();
                    if left.queue.spawn(move || Self::go_on(&next)).is_ok() {
                        return;
                    }
                    // Without memory for that, the next step is taken at once.
                }
                result => break result,
            }
        };
        let done = task.take();
        drop(task);
        // The session has the queue until it is told of the end, so that a queue never goes from
        // within.
        drop(done);
        this.end(result);
    }

    /// Moves the next part. Returns false once the end was asked for.
    fn step(&self, task: &mut Task) -> Result<bool> {
        if self.stop.load(Relaxed) {
            return Ok(false);
        }
        let (direction, part) = match task.direction {
            Some(direction) => (Some(direction), task.rest.clone()),
            None => preferred(&task.known, task.rest.clone()),
        };
        let start = task.rest.start;
        // Parts without a side take one step.
        let mut end = part.end;
        if let Some(direction) = direction {
            end = end.min((start / STEP + 1).saturating_mul(STEP));
            let mm = task.mm.mmget_not_zero().ok_or(ESRCH)?;
            let process = Process::with_memory(task.task.clone(), mm);
            if process.has_left() {
                return Err(ESRCH);
            }
            let device = task.pool.attached().ok_or(ENODEV)?;
            let flags = match direction {
                Direction::ToDevice => task.args.flags,
                Direction::ToSystem => MigrateFlags::default(),
            };
            let args = MigrateArgs {
                direction,
                flags,
                ..task.args
            };
            let mut tally = Tally::default();
            let target = Target {
                process: &process,
                known: Some(task.known.clone()),
                is_stopped: &|| self.stop.load(Relaxed),
            };
            let range = start..end;
            // What has no pages costs no steps.
            let result = migrate(&device, target, range, part.end, args, &mut tally);
            self.report.lock().tally.add(&tally);
            end = result?;
        }
        task.rest.start = end;
        self.report.lock().next = end;
        Ok(true)
    }

    fn end(&self, result: Result<bool>) {
        let mut report = self.report.lock();
        (report.state, report.error) = match result {
            Ok(true) => (PrefetchState::Done, 0),
            Ok(false) => (PrefetchState::Cancelled, 0),
            Err(error) => (PrefetchState::Failed, error.to_errno().unsigned_abs()),
        };
        self.ended.notify_all();
    }

    /// Asks it to stop.
    pub(super) fn cancel(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Waits for its end, at most `timeout_ms` milliseconds.
    ///
    /// # Errors
    ///
    /// If a signal came, `ERESTARTSYS`, or `EINTR` if there is a limit: a caller that begins again does not
    /// know what is left of it.
    pub(super) fn wait(&self, timeout_ms: u32) -> Result<Report> {
        let mut left = msecs_to_jiffies(timeout_ms);
        let mut report = self.report.lock();
        while report.state == PrefetchState::Running && left > 0 {
            if timeout_ms == WAIT_FOR_EVER {
                if self.ended.wait_interruptible(&mut report) {
                    return Err(ERESTARTSYS);
                }
                continue;
            }
            left = match self.ended.wait_interruptible_timeout(&mut report, left) {
                CondVarTimeoutResult::Woken { jiffies } => jiffies,
                CondVarTimeoutResult::Timeout => 0,
                CondVarTimeoutResult::Signal { .. } => return Err(EINTR),
            };
        }
        Ok(*report)
    }

    /// Waits for its end, whatever comes. The caller has asked it to stop.
    fn wait_until_stopped(&self) {
        let mut report = self.report.lock();
        while report.state == PrefetchState::Running {
            self.ended.wait(&mut report);
        }
    }
}

/// To which side the front of `range` is to move, and how far that is so.
fn preferred(known: &WatchedSpace, range: Range<usize>) -> (Option<Direction>, Range<usize>) {
    let (advice, end) = known.watcher().run(range.clone());
    let direction = advice.side.map(|side| match side {
        Side::Device => Direction::ToDevice,
        Side::System => Direction::ToSystem,
    });
    (direction, range.start..end)
}

/// The moves that an open file has begun, by their ids. Dropping them stops them.
#[pin_data(PinnedDrop)]
pub(super) struct Prefetches {
    #[pin]
    list: Mutex<List>,
}

struct List {
    last: u64,
    begun: KVec<(u64, Arc<Prefetch>)>,
}

impl Prefetches {
    pub(super) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let list = List {
                last: 0,
                begun: KVec::with_capacity(hmm_uapi::PREFETCHES_MAX, GFP_KERNEL)?,
            };
            Ok(try_pin_init!(Self {
                list <- new_mutex!(list, "session::Prefetches::list"),
            }? Error))
        })
    }

    /// Begins a move if there is room for one more. Returns its id.
    ///
    /// # Errors
    ///
    /// `EAGAIN` there is none, `ENOMEM`.
    pub(super) fn begin(&self, session: &Session, job: Job) -> Result<u64> {
        let mut list = self.list.lock();
        if list.begun.len() >= hmm_uapi::PREFETCHES_MAX {
            return Err(EAGAIN);
        }
        let begun = Prefetch::begin(session, job)?;
        list.last += 1;
        let id = list.last;
        list.begun
            .push_within_capacity((id, begun))
            .map_err(|_| EAGAIN)?;
        Ok(id)
    }

    /// A move by its id.
    ///
    /// # Errors
    ///
    /// `ENOENT`: there is none.
    pub(super) fn get(&self, id: u64) -> Result<Arc<Prefetch>> {
        let list = self.list.lock();
        let begun = list.begun.iter().find(|(other, _)| *other == id);
        begun.map(|(_, begun)| begun.clone()).ok_or(ENOENT)
    }

    /// Forgets a move.
    pub(super) fn forget(&self, id: u64) {
        self.list.lock().begun.retain(|(other, _)| *other != id);
    }
}

#[pinned_drop]
impl PinnedDrop for Prefetches {
    fn drop(self: Pin<&mut Self>) {
        let list = self.list.lock();
        for (_, begun) in &list.begun {
            begun.cancel();
        }
        // They end soon, and the workers must not go while one of them is running.
        for (_, begun) in &list.begun {
            begun.wait_until_stopped();
        }
    }
}
