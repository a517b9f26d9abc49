// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Locks and atomics: real ones, or those of the model checker.

#[cfg(not(loom))]
pub use parking_lot::RwLockReadGuard as ReadGuard;
#[cfg(not(loom))]
pub(crate) use {
    parking_lot::RwLock,
    std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(loom)]
pub use loom::sync::RwLockReadGuard as ReadGuard;
#[cfg(loom)]
pub(crate) use {
    self::model::RwLock,
    loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(loom)]
mod model {
    use loom::sync::{RwLockReadGuard, RwLockWriteGuard};

    /// The checker's lock with the methods of the real one. A model that panics ends, so no lock is ever poisoned.
    #[derive(Debug)]
    pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().expect("not poisoned")
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().expect("not poisoned")
        }
    }
}
