// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a worker thread keeps between batches.

use std::{collections::BTreeMap, time::Duration};

use hmm_protocol::{COMPLETION_BYTES, CONTROL_QUEUE};

use super::{
    chain::{Chain, Seen},
    used::UsedSet,
    window::PollWindow,
};
use crate::{
    engine::{Interrupted, Workspace},
    threads::WorkerTimes,
};

/// What a worker thread keeps between batches.
#[derive(Debug)]
pub struct Worker {
    pub(super) request: Vec<u8>,
    pub(super) chain: Chain,
    pub(super) workspace: Workspace,
    pub(super) used: UsedSet,
    /// When chains were seen, by queue: each counts its own positions.
    pub(super) seen: BTreeMap<u16, Seen>,
    /// How long the chain that was popped last had waited then.
    pub(super) delay: Option<Duration>,
    /// A control request that was put back halfway.
    pub(super) interrupted: Interrupted,
    /// A completion that a fault holds back, for one queue.
    pub(super) held: Option<(u16, Held)>,
    pub(super) poll: PollWindow,
    pub(super) longest_set: Duration,
}

impl Worker {
    /// A worker that keeps to these times.
    pub fn new(times: WorkerTimes) -> Self {
        Self {
            request: Vec::new(),
            chain: Chain::default(),
            workspace: Workspace::default(),
            used: UsedSet::default(),
            seen: BTreeMap::new(),
            delay: None,
            interrupted: Interrupted::default(),
            held: None,
            poll: PollWindow::new(times.poll),
            longest_set: times.set,
        }
    }

    /// Queue `index` was set up again: what was known of its chains is of other ones.
    pub(super) fn forget(&mut self, index: u16) {
        self.seen.remove(&index);
        self.workspace.forget();
        if index == CONTROL_QUEUE {
            self.interrupted = Interrupted::default();
        }
        self.held.take_if(|(queue, _)| *queue == index);
    }
}

/// A completion that a fault holds back.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) chain: Chain,
    pub(super) record: [u8; COMPLETION_BYTES],
    pub(super) statuses: Vec<u8>,
    pub(super) len: u32,
}
