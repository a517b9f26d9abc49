// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs boots side by side, so many at a time.
//!
//! A guest sleeps for a good part of its cases and seldom keeps more than one processor of the host busy, so that
//! several at once are done sooner. Tests add their boots while they are listed; the first test that waits for a result
//! starts the queue. Boots start in the order in which they were added: add the longest first.

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

/// Boots that wait for their turn.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

struct Inner {
    at_once: NonZeroUsize,
    waiting: Mutex<VecDeque<Job>>,
    started: OnceLock<()>,
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

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(at_once: NonZeroUsize) -> Self {
        Self(Arc::new(Inner {
            at_once,
            waiting: Mutex::default(),
            started: OnceLock::new(),
        }))
    }

    /// The number of guests that the environment asks for; without it one for each processor, up to [`MOST`].
    ///
    /// # Errors
    /// When it is no number above zero.
    pub fn from_environment() -> anyhow::Result<Self> {
        let at_once = match std::env::var(GUESTS_VARIABLE) {
            Ok(text) => guests(&text)
                .map_err(|error| anyhow::anyhow!("{GUESTS_VARIABLE}: {error}, found {text:?}"))?,
            Err(_) => without_a_number(thread::available_parallelism().ok()),
        };
        Ok(Self::new(at_once))
    }

    /// How many boots run at once.
    #[must_use]
    pub fn at_once(&self) -> NonZeroUsize {
        self.0.at_once
    }

    /// Adds a boot. It does not start before [`Queue::start`] or [`Boot::wait`].
    pub fn add<T: Send + 'static>(
        &self,
        boot: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Boot<T> {
        let result = Arc::new(Slot {
            result: Mutex::new(None),
            changed: Condvar::new(),
        });
        let slot = Arc::clone(&result);
        self.waiting().push_back(Box::new(move || {
            // The panic is printed where it happens. The test must not wait for ever.
            let outcome = catch_unwind(AssertUnwindSafe(boot))
                .unwrap_or_else(|_| Err("the boot's thread panicked".to_owned()));
            *lock(&slot.result) = Some(outcome);
            slot.changed.notify_all();
        }));
        Boot {
            queue: self.clone(),
            result,
        }
    }

    /// Starts the boots. Those that are added later start when one before them has ended, as long as there is one.
    pub fn start(&self) {
        self.0.started.get_or_init(|| {
            for number in 0..self.0.at_once.get() {
                let queue = self.clone();
                let run = move || {
                    loop {
                        // Not held while the boot runs.
                        let job = queue.waiting().pop_front();
                        match job {
                            Some(job) => job(),
                            None => break,
                        }
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

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Job>> {
        lock(&self.0.waiting)
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

fn without_a_number(processors: Option<NonZeroUsize>) -> NonZeroUsize {
    processors.unwrap_or(NonZeroUsize::MIN).min(MOST)
}

fn guests(text: &str) -> Result<NonZeroUsize, &'static str> {
    NonZeroUsize::from_str(text).map_err(|_| "expected a number of guests above zero")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Queue, guests, without_a_number};
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
                queue.add(move || {
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
            queue.add(move || {
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
                queue.add(move || {
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
        let broken = queue.add(|| -> Result<(), String> { panic!("this test panics") });
        let next = queue.add(|| Ok(7));
        assert!(broken.wait().unwrap_err().contains("panicked"));
        assert_eq!(next.wait(), Ok(7));
    }

    #[test]
    fn many_processors_do_not_fill_the_memory() {
        let guests = |processors| without_a_number(NonZeroUsize::new(processors)).get();
        assert_eq!([0, 1, 2, 64].map(guests), [1, 1, 2, 4]);
    }

    #[test]
    fn the_number_of_guests_is_above_zero() {
        assert_eq!(guests("3").map(NonZeroUsize::get), Ok(3));
        for wrong in ["", "0", "-1", "two"] {
            assert!(guests(wrong).is_err(), "{wrong:?}");
        }
    }
}
