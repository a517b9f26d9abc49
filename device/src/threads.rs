// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! For how long a worker thread does one thing. Which queues it serves is in [`layout`](crate::layout).

use std::time::Duration;

/// How long workers do something before they do something else.
#[derive(Clone, Copy, Debug)]
pub struct WorkerTimes {
    /// The longest look for a batch before a worker sleeps.
    pub poll: Duration,
    /// The longest copying before completions are published.
    pub set: Duration,
}
