// SPDX-License-Identifier: GPL-2.0-only

//! A value that the whole module shares, for callbacks of the kernel that bring nothing of the module's own.

use core::cell::UnsafeCell;
use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::{
            Acquire,
            Relaxed,
            Release, //
        },
        Atomic, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// How long a task waits for another that reads or replaces the value.
const PAUSE: Delta = Delta::from_micros(20);

/// A place for a value that is cheap to clone. It is empty until the module puts the value in, and the module takes it
/// out before it goes: a static is never dropped.
///
/// # Invariants
///
/// `value` is only accessed by the task that changed `is_taken` from 0 to 1, until it changes it back.
///
/// # Examples
///
/// ```ignore
/// static NUMBERS: Global<Arc<Numbers>> = Global::new();
/// NUMBERS.set(Some(numbers));
/// let numbers = NUMBERS.get().ok_or(ENODEV)?;
/// NUMBERS.set(None);
/// ```
pub(crate) struct Global<T> {
    is_taken: Atomic<u32>,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: By the type invariant one task accesses the value at a time.
unsafe impl<T: Send> Sync for Global<T> {}

impl<T: Clone> Global<T> {
    /// An empty place.
    pub(crate) const fn new() -> Self {
        Self {
            is_taken: Atomic::new(0),
            value: UnsafeCell::new(None),
        }
    }

    /// Replaces the value. May sleep.
    pub(crate) fn set(&self, value: Option<T>) {
        let before = self.access(|place| core::mem::replace(place, value));
        drop(before);
    }

    /// The value. May sleep.
    pub(crate) fn get(&self) -> Option<T> {
        self.access(|place| place.clone())
    }

    fn access<R>(&self, with: impl FnOnce(&mut Option<T>) -> R) -> R {
        // ORDERING: Acquire pairs with the release below: what the last task did to the value is seen.
        while self.is_taken.cmpxchg(0, 1, Acquire).is_err() {
            fsleep(PAUSE);
        }
        // SAFETY: By the type invariant; the value is this task's until the store below.
        let result = with(unsafe { &mut *self.value.get() });
        debug_assert!(self.is_taken.load(Relaxed) == 1);
        self.is_taken.store(0, Release);
        result
    }
}

#[kunit_tests(virtio_hmm_global)]
mod tests {
    use super::*;

    #[test]
    fn a_value_can_be_replaced() {
        static PLACE: Global<u32> = Global::new();
        assert!(PLACE.get().is_none());
        PLACE.set(Some(7));
        assert!(PLACE.get() == Some(7) && PLACE.get() == Some(7));
        PLACE.set(None);
        assert!(PLACE.get().is_none());
    }
}
