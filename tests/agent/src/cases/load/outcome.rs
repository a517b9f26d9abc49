// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the load came to.

use super::board::Board;
use super::operation::Operation;
use crate::cases::support::prelude::*;
use hmm_uapi::Stats;

/// What became of it, beside that nothing was wrong.
#[derive(Debug)]
pub(in crate::cases) struct Outcome {
    operations: Vec<(Operation, u32)>,
    killed: u32,
    /// How much the crowded device holds, and the most that was on it at a time, bytes.
    capacity: u64,
    fullest: u64,
    /// What the crowded device did.
    stats: Stats,
}

impl Outcome {
    /// What is on the board, and what the crowded device counted before and after.
    pub(super) fn new(
        board: &Board,
        before: &Stats,
        after: Stats,
        (capacity, fullest): (u64, u64),
    ) -> Self {
        Self {
            operations: Operation::all()
                .map(|operation| (operation, board.done(operation)))
                .collect(),
            killed: board.killed(),
            capacity,
            fullest,
            stats: since(after, before),
        }
    }

    /// Checks that the load was one. A short one on a slow kernel does not get to everything.
    pub(in crate::cases) fn expect_load(&self, is_long: bool) -> Result<()> {
        let stats = &self.stats;
        for (what, count) in [
            ("copies failed", stats.copy_errors),
            ("batches were not answered in time", stats.timeouts),
            ("answers made no sense", stats.protocol_errors),
            ("faults failed", stats.cpu_faults_failed),
        ] {
            ensure!(count == 0, "{count} {what}: {self:?}");
        }
        // It is emptied in the background before there is nothing left.
        let full = self.fullest.saturating_sub(self.capacity / 8 * 7);
        let by_device = (self.operations.iter())
            .filter(|(operation, _)| operation.is_by_device())
            .map(|&(_, count)| u64::from(count))
            .sum();
        let ksm = stats.pages_skipped[SkipReason::Ksm as usize];
        let expected = [
            ("memory went to the device", true, stats.bytes_to_device),
            ("memory came home by faults", true, stats.bytes_by_fault),
            ("the device worked on memory", true, by_device),
            ("a worker was killed", is_long, self.killed.into()),
            ("the device was full", is_long, full),
            ("memory was evicted", is_long, stats.bytes_by_eviction),
            ("memory stayed because it may be merged", is_long, ksm),
        ];
        for (what, is_expected, count) in expected {
            ensure!(
                !is_expected || count > 0,
                "it never happened that {what}: {self:?}"
            );
        }
        for (operation, count) in &self.operations {
            ensure!(
                !is_long || *count > 0,
                "there was no {operation:?}: {self:?}"
            );
        }
        Ok(())
    }
}

/// What a device did between two looks at its counters.
fn since(mut since: Stats, before: &Stats) -> Stats {
    for (counter, before) in [
        (&mut since.bytes_to_device, before.bytes_to_device),
        (&mut since.bytes_to_system, before.bytes_to_system),
        (&mut since.bytes_by_fault, before.bytes_by_fault),
        (&mut since.bytes_by_eviction, before.bytes_by_eviction),
        (&mut since.cpu_faults, before.cpu_faults),
        (&mut since.cpu_faults_failed, before.cpu_faults_failed),
        (&mut since.batches, before.batches),
        (&mut since.doorbells, before.doorbells),
        (&mut since.copy_errors, before.copy_errors),
        (&mut since.timeouts, before.timeouts),
        (&mut since.protocol_errors, before.protocol_errors),
    ] {
        *counter -= before;
    }
    for (counter, before) in since.pages_skipped.iter_mut().zip(before.pages_skipped) {
        *counter -= before;
    }
    since
}
