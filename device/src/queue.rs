// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Queues: from rings to requests and back. The copying is the engine's.
//!
//! Lock order: gate, ring, then whatever the engine takes. A ring is locked to pop and to publish, never while a batch
//! is executed.

mod batches;
mod chain;
mod controls;
mod events;
mod fence;
mod poll;
mod pop;
mod progress;
mod reports;
mod used;
mod window;
mod worker;

pub use self::{progress::Progress, worker::Worker};
