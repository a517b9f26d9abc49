// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs boots side by side, as many as the host's processors carry.
//!
//! The two processors of an emulated guest wait for each other in short loops: for every page that is unmapped, one waits
//! until the other has flushed its TLB. When the host runs that other one only 4 ms later, since more processors are
//! emulated than there are, the guest does little but wait: the `migrate/` cases of the debug kernel take 32 s when one
//! guest has a host with two processors, and 90 s when two share it. So a boot that keeps its processors [busy](Weight::Busy)
//! gets as many of the host, and [calm](Weight::Calm) ones, which boot, sleep and wait most of the time, get one each.
//! Cases in which a device is lost do little but wait until it is back: the `loss/` ones of the stock kernel take 420 s and
//! keep the guest's processors busy for a seventh of that. Two such [idle](Weight::Idle) boots share a processor.
//!
//! Tests add their boots while they are listed; the first test that waits for a result starts the queue. Boots start in
//! the order in which they were added: add the longest first.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

/// How many guests run at once.
pub const GUESTS_VARIABLE: &str = "HMM_GUESTS";

/// The most guests that run at once unless more are asked for: each may fill 4 GiB of the host's memory.
const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
/// Processors that a guest has.
const GUEST_PROCESSORS: usize = 2;
/// What [`Room`] counts in: so many make a processor.
const SHARES: usize = 2;

/// How much a boot asks of the host's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// All processors of the guest work most of the time.
    Busy,
    /// The guest boots, and waits; one processor at most works most of the time.
    Calm,
    /// The guest waits nearly always.
    Idle,
}

/// Boots that wait for their turn.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

struct Inner {
    room: Room,
    state: Mutex<State>,
    /// A boot has ended.
    ended: Condvar,
    started: OnceLock<()>,
}

/// What boots share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    /// Guests at once.
    guests: NonZeroUsize,
    /// Processors for them, in [`SHARES`].
    shares: usize,
    /// Shares of a busy, a calm and an idle boot.
    costs: [usize; 3],
}

struct State {
    waiting: VecDeque<(usize, Job)>,
    /// Shares that no boot has.
    free: usize,
}

type Job = Box<dyn FnOnce() + Send>;

/// The result of a boot, now or later.
pub struct Boot<T> {
    queue: Queue,
    result: Arc<Slot<T>>,
}

struct Slot<T> {
    result: Mutex<Option<Result<T, String>>>,
    changed: Condvar,
}

impl Room {
    /// So many guests, whatever they do.
    fn of_guests(guests: NonZeroUsize) -> Self {
        Self {
            guests,
            shares: guests.get(),
            costs: [1; 3],
        }
    }

    /// What a host with so many processors carries.
    fn of_host(processors: Option<NonZeroUsize>) -> Self {
        let processors = processors.unwrap_or(NonZeroUsize::MIN).get();
        Self {
            guests: MOST,
            shares: processors.saturating_mul(SHARES),
            costs: [GUEST_PROCESSORS.min(processors) * SHARES, SHARES, 1],
        }
    }

    fn cost(self, weight: Weight) -> usize {
        let [busy, calm, idle] = self.costs;
        match weight {
            Weight::Busy => busy,
            Weight::Calm => calm,
            Weight::Idle => idle,
        }
    }

    /// How many boots of this weight run at once; at least one.
    fn at_once(self, weight: Weight) -> NonZeroUsize {
        let carried = NonZeroUsize::new(self.shares / self.cost(weight));
        carried.unwrap_or(NonZeroUsize::MIN).min(self.guests)
    }
}

impl Queue {
    /// An empty queue, for so many guests at once, whatever they do.
    #[must_use]
    pub fn new(guests: NonZeroUsize) -> Self {
        Self::with(Room::of_guests(guests))
    }

    fn with(room: Room) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            free: room.shares,
        };
        Self(Arc::new(Inner {
            room,
            state: Mutex::new(state),
            ended: Condvar::new(),
            started: OnceLock::new(),
        }))
    }

    /// The number of guests that the environment asks for; without it as many as the host's processors carry, and no
    /// more than four.
    ///
    /// # Errors
    /// When it is no number above zero.
    pub fn from_environment() -> anyhow::Result<Self> {
        let room =
            match std::env::var(GUESTS_VARIABLE) {
                Ok(text) => Room::of_guests(guests(&text).map_err(|error| {
                    anyhow::anyhow!("{GUESTS_VARIABLE}: {error}, found {text:?}")
                })?),
                Err(_) => Room::of_host(thread::available_parallelism().ok()),
            };
        Ok(Self::with(room))
    }

    /// How many boots of this weight run at once.
    #[must_use]
    pub fn at_once(&self, weight: Weight) -> NonZeroUsize {
        self.0.room.at_once(weight)
    }

    /// Adds a boot. It does not start before [`Queue::start`] or [`Boot::wait`].
    pub fn add<T: Send + 'static>(
        &self,
        weight: Weight,
        boot: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Boot<T> {
        let result = Arc::new(Slot {
            result: Mutex::new(None),
            changed: Condvar::new(),
        });
        let slot = Arc::clone(&result);
        let job = Box::new(move || {
            // The panic is printed where it happens. The test must not wait for ever.
            let outcome = catch_unwind(AssertUnwindSafe(boot))
                .unwrap_or_else(|_| Err("the boot's thread panicked".to_owned()));
            *lock(&slot.result) = Some(outcome);
            slot.changed.notify_all();
        });
        let cost = self.0.room.cost(weight);
        lock(&self.0.state).waiting.push_back((cost, job));
        Boot {
            queue: self.clone(),
            result,
        }
    }

    /// Starts the boots. Those that are added later start when one before them has ended, as long as there is one.
    pub fn start(&self) {
        self.0.started.get_or_init(|| {
            for number in 0..self.0.room.guests.get() {
                let queue = self.clone();
                let run = move || {
                    while let Some((cost, job)) = queue.next() {
                        job();
                        lock(&queue.0.state).free += cost;
                        queue.0.ended.notify_all();
                    }
                };
                let name = format!("boots-{number}");
                // A machine without room for a thread runs the boots here, one after the other.
                if thread::Builder::new()
                    .name(name)
                    .spawn(run.clone())
                    .is_err()
                {
                    run();
                }
            }
        });
    }

    /// The first boot that waits, with its shares, as soon as these are free.
    fn next(&self) -> Option<(usize, Job)> {
        let mut state = lock(&self.0.state);
        loop {
            let cost = state.waiting.front()?.0;
            if cost <= state.free {
                state.free -= cost;
                return state.waiting.pop_front();
            }
            state = (self.0.ended.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T: Clone> Boot<T> {
    /// Starts the queue.
    pub fn start(&self) {
        self.queue.start();
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// What the boot returned.
    pub fn wait(&self) -> Result<T, String> {
        self.start();
        let mut result = lock(&self.result.result);
        loop {
            if let Some(result) = &*result {
                return result.clone();
            }
            result = (self.result.changed.wait(result)).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn guests(text: &str) -> Result<NonZeroUsize, &'static str> {
    NonZeroUsize::from_str(text).map_err(|_| "expected a number of guests above zero")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Queue, Room, Weight, guests};
    use std::num::NonZeroUsize;
    use std::sync::Arc;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn queue(at_once: usize) -> Queue {
        Queue::new(NonZeroUsize::new(at_once).unwrap())
    }

    #[test]
    fn nothing_starts_before_a_result_is_wanted() {
        let queue = queue(2);
        let started = Arc::new(AtomicUsize::new(0));
        let boots: Vec<_> = (0..5)
            .map(|number| {
                let started = Arc::clone(&started);
                queue.add(Weight::Busy, move || {
                    started.fetch_add(1, Ordering::SeqCst);
                    Ok(number)
                })
            })
            .collect();
        assert_eq!(started.load(Ordering::SeqCst), 0);
        assert_eq!(boots[4].wait(), Ok(4));
        for (number, boot) in boots.iter().enumerate() {
            assert_eq!(boot.wait(), Ok(number));
        }
        assert_eq!(started.load(Ordering::SeqCst), 5);
    }

    #[test]
    fn as_many_run_at_once_as_asked_for() {
        // Each waits for the other, so that neither ends unless both run.
        let (queue, both) = (queue(2), Arc::new(Barrier::new(2)));
        let boots = [(); 2].map(|()| {
            let both = Arc::clone(&both);
            queue.add(Weight::Busy, move || {
                both.wait();
                Ok(())
            })
        });
        assert_eq!(boots.map(|boot| boot.wait()), [Ok(()), Ok(())]);
    }

    #[test]
    fn no_more_run_at_once_and_in_order() {
        let queue = queue(1);
        let (running, order) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let boots: Vec<_> = (0..20)
            .map(|_| {
                let (running, order) = (Arc::clone(&running), Arc::clone(&order));
                queue.add(Weight::Busy, move || {
                    let others = running.fetch_add(1, Ordering::SeqCst);
                    let position = order.fetch_add(1, Ordering::SeqCst);
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok((others, position))
                })
            })
            .collect();
        for (number, boot) in boots.iter().enumerate() {
            assert_eq!(boot.wait(), Ok((0, number)));
        }
    }

    #[test]
    fn a_boot_that_panics_is_a_failure_and_the_next_one_runs() {
        let queue = queue(1);
        let broken = queue.add(Weight::Busy, || -> Result<(), String> {
            panic!("this test panics")
        });
        let next = queue.add(Weight::Busy, || Ok(7));
        assert!(broken.wait().unwrap_err().contains("panicked"));
        assert_eq!(next.wait(), Ok(7));
    }

    #[test]
    fn calm_boots_share_the_processors_of_a_busy_one() {
        let queue = Queue::with(Room::of_host(NonZeroUsize::new(2)));
        let running = Arc::new(AtomicUsize::new(0));
        let busy = [(); 2].map(|()| {
            let running = Arc::clone(&running);
            queue.add(Weight::Busy, move || {
                let others = running.fetch_add(1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(others)
            })
        });
        // Each waits for the other, so that neither ends unless both run.
        let both = Arc::new(Barrier::new(2));
        let calm = [(); 2].map(|()| {
            let (both, running) = (Arc::clone(&both), Arc::clone(&running));
            queue.add(Weight::Calm, move || {
                both.wait();
                Ok(running.load(Ordering::SeqCst))
            })
        });
        for boot in busy.iter().chain(&calm) {
            assert_eq!(boot.wait(), Ok(0), "a busy boot has the host to itself");
        }
    }

    #[test]
    fn a_host_carries_what_its_processors_and_its_memory_do() {
        let at_once = |weight| {
            [0, 1, 2, 3, 4, 64].map(|processors| {
                let room = Room::of_host(NonZeroUsize::new(processors));
                room.at_once(weight).get()
            })
        };
        assert_eq!(at_once(Weight::Busy), [1, 1, 1, 1, 2, 4]);
        assert_eq!(at_once(Weight::Calm), [1, 1, 2, 3, 4, 4]);
        assert_eq!(at_once(Weight::Idle), [2, 2, 4, 4, 4, 4]);
    }

    #[test]
    fn the_number_of_guests_is_above_zero() {
        assert_eq!(guests("3").map(NonZeroUsize::get), Ok(3));
        for wrong in ["", "0", "-1", "two"] {
            assert!(guests(wrong).is_err(), "{wrong:?}");
        }
    }
}
