// SPDX-License-Identifier: GPL-2.0-only

//! Moves that go on while their caller does something else.

use super::Session;
use crate::{
    migration::{
        range::{
            migrate,
            Movers,
            Order, //
        },
        Tally, //
    },
    policy::Known,
    sys::workqueue::WorkQueue, //
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
    mm::{
        Mm,
        MmWithUser, //
    },
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

/// A request to stop is noticed after so many bytes.
const STEP: usize = 32 << 20;

/// What is to be moved.
pub(super) struct Job {
    pub(super) mm: ARef<MmWithUser>,
    pub(super) known: Option<Known>,
    pub(super) range: Range<usize>,
    /// `None`: each part to its preferred side.
    pub(super) direction: Option<Direction>,
    pub(super) order: Order,
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
        let this = Arc::pin_init(
            try_pin_init!(Self {
                report <- new_mutex!(report, "session::Prefetch::report"),
                ended <- new_condvar!("session::Prefetch::ended"),
                stop: AtomicFlag::new(false),
            }? Error),
            GFP_KERNEL,
        )?;
        let Job {
            mm,
            known,
            range,
            direction,
            order,
        } = job;
        // Until it is its turn, the move does not keep the memory of a process that has ended.
        let mm: ARef<Mm> = ARef::from(&**mm);
        let (begun, door) = (this.clone(), session.door.clone());
        let helpers = session.workers.clone();
        session.prefetchers.spawn(move || {
            let result = match mm.mmget_not_zero() {
                Some(mm) => begun.run(
                    &helpers,
                    &door,
                    Job {
                        mm,
                        known,
                        range,
                        direction,
                        order,
                    },
                ),
                None => Err(ESRCH),
            };
            begun.end(result);
        })?;
        Ok(this)
    }

    /// Moves step by step. Returns whether it went to the end.
    fn run(
        &self,
        queue: &Arc<WorkQueue>,
        door: &Arc<crate::migration::Door>,
        job: Job,
    ) -> Result<bool> {
        let mut rest = job.range;
        while rest.start < rest.end {
            if self.stop.load(Relaxed) {
                return Ok(false);
            }
            let (direction, part) = match job.direction {
                Some(direction) => (Some(direction), rest.clone()),
                None => preferred(job.known.as_ref(), rest.clone()),
            };
            let end = part.end.min((rest.start / STEP + 1).saturating_mul(STEP));
            if let Some(direction) = direction {
                let memory = door.enter().ok_or(ENODEV)?;
                let link = memory.ops().server().link().enter().ok_or(ENODEV)?;
                let movers = Movers {
                    queue,
                    door,
                    memory: &memory,
                    link: &link,
                };
                let flags = match direction {
                    Direction::ToDevice => job.order.flags,
                    Direction::ToSystem => MigrateFlags::default(),
                };
                let order = Order {
                    direction,
                    flags,
                    ..job.order
                };
                let mut tally = Tally::default();
                let known = job.known.clone();
                let result = migrate(&movers, &job.mm, known, rest.start..end, order, &mut tally);
                self.report.lock().tally.add(&tally);
                result?;
            }
            rest.start = end;
            self.report.lock().next = end;
        }
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
    /// `EINTR`: a signal came.
    pub(super) fn wait(&self, timeout_ms: u32) -> Result<Report> {
        let mut left = msecs_to_jiffies(timeout_ms);
        let mut report = self.report.lock();
        while report.state == PrefetchState::Running && left > 0 {
            if timeout_ms == WAIT_FOR_EVER {
                if self.ended.wait_interruptible(&mut report) {
                    return Err(EINTR);
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
fn preferred(known: Option<&Known>, range: Range<usize>) -> (Option<Direction>, Range<usize>) {
    let Some(known) = known else {
        return (None, range);
    };
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
