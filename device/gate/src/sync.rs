// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Locks and atomics: real ones, or those of the model checker.
//!
//! The real lock is sharded: a reader takes one of eight locks, each on cache lines of its own, and a writer takes all of
//! them. Workers that enter and leave the gate write to different lines, so that more of them do not make each slower.

#[cfg(not(loom))]
pub use self::sharded::RwLock;
#[cfg(not(loom))]
pub use crossbeam_utils::sync::ShardedLockReadGuard as ReadGuard;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

#[cfg(loom)]
pub use self::model::RwLock;
#[cfg(loom)]
pub use loom::sync::RwLockReadGuard as ReadGuard;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

#[cfg(not(loom))]
mod sharded {
    use std::sync::PoisonError;

    use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};

    /// The sharded lock without poisoning: a panic of any thread ends the device.
    #[derive(Debug)]
    pub struct RwLock<T>(ShardedLock<T>);

    impl<T> RwLock<T> {
        /// An open lock around `value`.
        pub fn new(value: T) -> Self {
            Self(ShardedLock::new(value))
        }

        /// Shares the value with other readers.
        pub fn read(&self) -> ShardedLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        /// Has the value alone.
        pub fn write(&self) -> ShardedLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(loom)]
mod model {
    use loom::sync::{RwLockReadGuard, RwLockWriteGuard};

    /// The checker's lock with the methods of the real one. A model that panics ends, so no lock is ever poisoned.
    #[derive(Debug)]
    pub struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        /// An open lock around `value`.
        pub fn new(value: T) -> Self {
            Self(loom::sync::RwLock::new(value))
        }

        /// Shares the value with other readers.
        pub fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().expect("not poisoned")
        }

        /// Has the value alone.
        pub fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().expect("not poisoned")
        }
    }
}
