// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is counted. Counters are relaxed atomics: a snapshot is not one instant, and no counter goes backwards but by a
//! reset. Those of a queue belong to its worker and lie on cache lines of their own.

mod counter;
mod histogram;
pub mod prometheus;
mod snapshot;

use std::time::Duration;

use crossbeam_utils::CachePadded;
use hmm_protocol::{MapOp, Op, Status};

pub use self::{
    counter::{Counter, WorkerCounter},
    histogram::{Histogram, HistogramSnapshot},
    snapshot::{Conditions, DeviceSnapshot, OpSnapshot, QueueSnapshot, Snapshot},
};
use crate::{
    engine::{Report, Workspace},
    layout::QueueLayout,
};

/// What one operation did on one queue.
#[derive(Debug, Default)]
pub struct OpStats {
    ok: WorkerCounter,
    failed: WorkerCounter,
    bytes: WorkerCounter,
}

/// The operations, in the order in which they are kept.
const OPS: [Op; 5] = [Op::ToDevice, Op::ToSystem, Op::Copy, Op::Fill, Op::Nop];

/// The same for changes of page tables.
const MAP_OPS: [MapOp; 5] = [
    MapOp::Map,
    MapOp::Unmap,
    MapOp::Protect,
    MapOp::Resume,
    MapOp::Fail,
];

/// What happened on one queue.
#[derive(Debug, Default)]
pub struct QueueStats {
    /// Times that the front end kicked.
    pub kicks: WorkerCounter,
    /// Signals sent to the driver.
    pub signals_sent: WorkerCounter,
    /// Sets of completions that the driver wanted no signal for.
    pub signals_suppressed: WorkerCounter,
    /// Times that a worker looked for a batch and found one.
    pub polls_hit: WorkerCounter,
    /// Times that a worker looked for a batch in vain.
    pub polls_missed: WorkerCounter,
    /// Chains with too many descriptors, readable ones after writable ones, or buffers outside the memory table.
    pub malformed_chains: WorkerCounter,
    /// Chains without room for an answer, or whose room is not in the memory table.
    pub without_record: WorkerCounter,
    /// Times that the queue broke.
    pub broken: WorkerCounter,
    /// Events told.
    pub events: WorkerCounter,
    ops: [OpStats; OPS.len()],
    map_ops: [OpStats; MAP_OPS.len()],
    results: [WorkerCounter; Status::ALL.len()],
    service: Histogram,
    delay: Histogram,
    copy: Histogram,
}

impl QueueStats {
    /// Counts a batch with what its entries did.
    pub fn record_batch(&self, report: &Report, workspace: &Workspace, service: Duration) {
        self.count_result(report.status);
        self.service.record(service);
        self.copy.record(report.measured);
        if report.with_statuses || report.completion.entries_ok.get() > 0 || is_partial(report) {
            let copies = (workspace.ops()).map(|(op, count)| (&self.ops[op as usize - 1], count));
            let maps =
                (workspace.map_ops()).map(|(op, count)| (&self.map_ops[op as usize - 1], count));
            for (stats, count) in copies.chain(maps) {
                stats.ok.add(u64::from(count.ok));
                stats.failed.add(u64::from(count.failed));
                stats.bytes.add(count.bytes);
            }
        }
    }

    /// Counts how long a batch waited from when the device saw it to when it was started.
    pub fn record_delay(&self, delay: Duration) {
        self.delay.record(delay);
    }

    /// Counts a control request.
    pub fn record_control(&self, status: Status) {
        self.count_result(status);
    }

    fn count_result(&self, status: Status) {
        if let Some(index) = Status::ALL.iter().position(|known| *known == status) {
            self.results[index].add(1);
        }
    }

    fn reset(&self) {
        for counter in [
            &self.kicks,
            &self.signals_sent,
            &self.signals_suppressed,
            &self.polls_hit,
            &self.polls_missed,
            &self.malformed_chains,
            &self.without_record,
            &self.broken,
            &self.events,
        ]
        .into_iter()
        .chain(&self.results)
        .chain(
            (self.ops.iter().chain(&self.map_ops)).flat_map(|op| [&op.ok, &op.failed, &op.bytes]),
        ) {
            counter.reset();
        }
        self.service.reset();
        self.delay.reset();
        self.copy.reset();
    }
}

/// Whether single entries failed, so that the workspace speaks of this batch.
fn is_partial(report: &Report) -> bool {
    report.completion.first_error.get() != hmm_protocol::NO_ERROR_INDEX
}

/// What happened on the device.
#[derive(Debug)]
pub struct Stats {
    layout: QueueLayout,
    queues: Vec<CachePadded<QueueStats>>,
    /// Front ends that connected.
    pub connections: Counter,
    /// Times that a driver negotiated features, that is, started.
    pub driver_starts: Counter,
    /// Changes of the memory table.
    pub memory_updates: Counter,
    /// Writes to the configuration space, which are ignored.
    pub config_writes: Counter,
    /// Reads of the configuration space.
    pub config_reads: Counter,
}

impl Stats {
    /// Counters for the queues of `layout`.
    pub fn new(layout: QueueLayout) -> Self {
        Self {
            layout,
            queues: (0..layout.count())
                .map(|_| CachePadded::default())
                .collect(),
            connections: Counter::default(),
            driver_starts: Counter::default(),
            memory_updates: Counter::default(),
            config_writes: Counter::default(),
            config_reads: Counter::default(),
        }
    }

    /// The counters of a queue of the device.
    pub fn queue(&self, index: u16) -> &QueueStats {
        &self.queues[usize::from(index)]
    }

    /// Sets every counter to zero.
    pub fn reset(&self) {
        for queue in &self.queues {
            queue.reset();
        }
        for counter in [
            &self.connections,
            &self.driver_starts,
            &self.memory_updates,
            &self.config_writes,
            &self.config_reads,
        ] {
            counter.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{align_of_val, size_of_val};

    use super::{QueueLayout, Stats};

    #[test]
    fn queues_share_no_cache_line() {
        let stats = Stats::new(QueueLayout::new(1, 0));
        let queue = &stats.queues[1];
        assert!(align_of_val(queue) >= 64);
        assert_eq!(size_of_val(queue) % 64, 0);
    }
}
