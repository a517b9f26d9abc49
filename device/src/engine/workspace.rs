// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A worker's memory for the results of entries.

use hmm_protocol::{MapOp, Op, Status, status_array_bytes};

use crate::inject::BatchFaults;

/// Number of operations, for arrays that are indexed by them.
const OPS: usize = Op::Nop as usize + 1;

/// What was done by one operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpCount {
    /// Entries whose status is `Ok`.
    pub ok: u32,
    /// Entries with another status.
    pub failed: u32,
    /// Bytes copied or filled.
    pub bytes: u64,
}

/// A worker's memory for the entries' results. It is used again for each batch.
#[derive(Debug, Default)]
pub struct Workspace {
    statuses: Vec<u8>,
    pub(super) ops: [OpCount; OPS],
    pub(super) entries_ok: u32,
    pub(super) bytes_done: u64,
    pub(super) first_error: Option<(u32, Status)>,
    /// The same for batches that change page tables.
    pub(super) map: MapTally,
}

impl Workspace {
    /// The status array of the last batch, with its padding.
    pub fn statuses(&self) -> &[u8] {
        &self.statuses
    }

    /// What the last batch did, by operation. Entries that were never understood count as `Nop`.
    pub fn ops(&self) -> impl Iterator<Item = (Op, OpCount)> + '_ {
        self.ops
            .iter()
            .enumerate()
            .filter_map(|(wire, count)| Some((Op::from_wire(wire as u8)?, *count)))
            .filter(|(_, count)| count.ok != 0 || count.failed != 0)
    }

    /// What the last batch did to page tables, by operation.
    pub fn map_ops(&self) -> impl Iterator<Item = (MapOp, OpCount)> + '_ {
        self.map.ops()
    }

    /// Forgets a batch that was interrupted.
    pub fn forget(&mut self) {
        self.map.forget();
    }

    pub(super) fn reset(&mut self, entries: u32) {
        self.statuses.clear();
        self.statuses
            .resize(status_array_bytes(entries), Status::NotAttempted.to_wire());
        self.ops = [OpCount::default(); OPS];
        self.map.reset();
        self.entries_ok = 0;
        self.bytes_done = 0;
        self.first_error = None;
    }

    pub(super) fn succeed(&mut self, first: usize, count: usize, op: Op, bytes: u64) {
        self.statuses[first..first + count].fill(Status::Ok.to_wire());
        self.entries_ok += count as u32;
        self.bytes_done += bytes;
        let counted = &mut self.ops[op as usize];
        counted.ok += count as u32;
        counted.bytes += bytes;
    }

    pub(super) fn fail(&mut self, index: usize, op: Op, status: Status) {
        self.ops[op as usize].failed += 1;
        self.note_failure(index, status);
    }

    pub(super) fn note_failure(&mut self, index: usize, status: Status) {
        self.statuses[index] = status.to_wire();
        self.first_error.get_or_insert((index as u32, status));
    }

    pub(super) fn note_success(&mut self, index: usize) {
        self.statuses[index] = Status::Ok.to_wire();
        self.entries_ok += 1;
    }
}

const MAP_OPS: [MapOp; 5] = [
    MapOp::Map,
    MapOp::Unmap,
    MapOp::Protect,
    MapOp::Resume,
    MapOp::Fail,
];

/// What a batch did so far, by operation, and where to go on with one that was interrupted.
#[derive(Debug, Default)]
pub(super) struct MapTally {
    ops: [OpCount; MAP_OPS.len()],
    pub(super) interrupted: Option<Interrupted>,
}

/// A batch that was put back because its worker had to leave the gate. It is taken again, and goes on.
#[derive(Debug)]
pub(super) struct Interrupted {
    pub(super) request: Vec<u8>,
    /// The entry to go on with.
    pub(super) index: usize,
    /// The address in it, if a part of it is done.
    pub(super) at: Option<u64>,
    /// What faults wanted of it when it began.
    pub(super) wanted: BatchFaults,
}

impl MapTally {
    fn ops(&self) -> impl Iterator<Item = (MapOp, OpCount)> + '_ {
        (MAP_OPS.into_iter().zip(self.ops)).filter(|(_, count)| count.ok != 0 || count.failed != 0)
    }

    fn reset(&mut self) {
        self.ops = [OpCount::default(); MAP_OPS.len()];
    }

    fn forget(&mut self) {
        self.interrupted = None;
    }

    pub(super) fn of(&mut self, op: MapOp) -> &mut OpCount {
        &mut self.ops[op as usize - 1]
    }
}
