// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Synchronisation between the device's workers and the threads that change the state they work on.
//!
//! - [`Gate`]: the barrier between workers and changes of the memory table, of queues and of sessions.
//! - [`QueueState`]: what threads know of a queue beside its ring.
//! - [`Tickets`]: the order of fences among queues.
//! - [`ShardedLock`]: the lock below the gate, for whatever else every worker reads for each batch.
//!
//! It is a crate of its own so that a model checker can take all of it: with `--cfg loom` its locks and atomics are loom's,
//! and `tests/models.rs` runs through all their interleavings.

#![forbid(unsafe_code)]

mod barrier;
mod fence;
mod queue;
mod sync;

pub use self::{
    barrier::Gate,
    fence::Tickets,
    queue::QueueState,
    sync::{ReadGuard, RwLock as ShardedLock},
};
