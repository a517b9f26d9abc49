// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The counters at some time, as they are shown.

use std::collections::BTreeMap;

use hmm_protocol::Status;
use serde::Serialize;

use super::{HistogramSnapshot, MAP_OPS, OPS, OpStats, QueueStats, Stats};
use crate::{jobs::JobsSnapshot, memory::BackingReport, mmu::ContextsSnapshot};

/// Under what conditions was counted.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Whether a modelled link adds to service times.
    pub modelled: bool,
    /// What large batches are copied with.
    pub copies: String,
    /// What backs device memory.
    pub backing: BackingReport,
    /// Contexts and their page tables.
    pub contexts: ContextsSnapshot,
    /// Jobs and their page faults.
    pub jobs: JobsSnapshot,
}

/// All counters.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// `measured`, or `modelled` if a modelled link adds to `service`. Everything else is measured always.
    pub service_kind: &'static str,
    /// What large batches are copied with. If it is `none`, no byte is moved, and `bytes` are those that were asked for.
    pub copies: String,
    /// What backs device memory, and how much of it huge pages map.
    pub backing: BackingReport,
    /// Counters of the device as a whole.
    pub device: DeviceSnapshot,
    /// Contexts and their page tables.
    pub contexts: ContextsSnapshot,
    /// Jobs and their page faults.
    pub jobs: JobsSnapshot,
    /// Counters of each queue, by its name: `control`, `event`, `urgent`, `bulk0` …, `mmu`, `report`, `job0` …
    pub queues: BTreeMap<String, QueueSnapshot>,
}

/// Counters of the device as a whole.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceSnapshot {
    /// Front ends that connected.
    pub connections: u64,
    /// Times that a driver negotiated features.
    pub driver_starts: u64,
    /// Changes of the memory table.
    pub memory_updates: u64,
    /// Reads of the configuration space.
    pub config_reads: u64,
    /// Writes to the configuration space, which are ignored.
    pub config_writes: u64,
}

/// Counters of one queue.
#[derive(Clone, Debug, Serialize)]
pub struct QueueSnapshot {
    /// Kicks received.
    pub kicks: u64,
    /// Signals sent.
    pub signals_sent: u64,
    /// Sets of completions that the driver wanted no signal for.
    pub signals_suppressed: u64,
    /// Looks for a batch that found one.
    pub polls_hit: u64,
    /// Looks for a batch in vain.
    pub polls_missed: u64,
    /// Chains that made no sense.
    pub malformed_chains: u64,
    /// Chains without room for an answer.
    pub without_record: u64,
    /// Times that the queue broke.
    pub broken: u64,
    /// Events told.
    pub events: u64,
    /// Batches or requests by the name of their status; those that occurred.
    pub results: BTreeMap<&'static str, u64>,
    /// What each operation did; those that occurred.
    pub ops: BTreeMap<&'static str, OpSnapshot>,
    /// Time from the start of a batch to its completion, with what faults and a modelled link add.
    pub service: HistogramSnapshot,
    /// Time that batches really took, measured.
    pub copy: HistogramSnapshot,
    /// Time from when the device saw a batch to its start, measured.
    pub delay: HistogramSnapshot,
}

/// Counters of one operation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct OpSnapshot {
    /// Entries that succeeded.
    pub entries_ok: u64,
    /// Entries that failed.
    pub entries_failed: u64,
    /// Bytes copied or filled, or mapped.
    pub bytes: u64,
}

impl Stats {
    /// The counters now.
    pub fn snapshot(&self, conditions: Conditions) -> Snapshot {
        Snapshot {
            service_kind: if conditions.modelled {
                "modelled"
            } else {
                "measured"
            },
            copies: conditions.copies,
            backing: conditions.backing,
            device: DeviceSnapshot {
                connections: self.connections.get(),
                driver_starts: self.driver_starts.get(),
                memory_updates: self.memory_updates.get(),
                config_reads: self.config_reads.get(),
                config_writes: self.config_writes.get(),
            },
            contexts: conditions.contexts,
            jobs: conditions.jobs,
            queues: (0u16..)
                .zip(&self.queues)
                .map(|(index, queue)| (self.layout.name(index), queue.snapshot()))
                .collect(),
        }
    }
}

impl QueueStats {
    fn snapshot(&self) -> QueueSnapshot {
        QueueSnapshot {
            kicks: self.kicks.get(),
            signals_sent: self.signals_sent.get(),
            signals_suppressed: self.signals_suppressed.get(),
            polls_hit: self.polls_hit.get(),
            polls_missed: self.polls_missed.get(),
            malformed_chains: self.malformed_chains.get(),
            without_record: self.without_record.get(),
            broken: self.broken.get(),
            events: self.events.get(),
            results: Status::ALL
                .iter()
                .zip(&self.results)
                .filter(|(_, count)| count.get() > 0)
                .map(|(status, count)| (status.name(), count.get()))
                .collect(),
            ops: (OPS.iter().map(|op| op.name()).zip(&self.ops))
                .chain(MAP_OPS.iter().map(|op| op.name()).zip(&self.map_ops))
                .filter(|(_, count)| count.ok.get() + count.failed.get() > 0)
                .map(|(name, count)| (name, count.snapshot()))
                .collect(),
            service: self.service.snapshot(),
            delay: self.delay.snapshot(),
            copy: self.copy.snapshot(),
        }
    }
}

impl OpStats {
    fn snapshot(&self) -> OpSnapshot {
        OpSnapshot {
            entries_ok: self.ok.get(),
            entries_failed: self.failed.get(),
            bytes: self.bytes.get(),
        }
    }
}
