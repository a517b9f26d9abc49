// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Batches of the MMU queue: from the bytes of a request to changes of page tables and answers to page faults.

use std::time::Instant;

use hmm_protocol::{
    BatchFlags, MAP_ENTRY_BYTES, MAP_HEADER_BYTES, MapEntry, MapHeader, MapOp, Status,
    status_array_bytes,
};
use zerocopy::{
    FromBytes,
    byteorder::little_endian::{U32, U64},
};

use super::{Engine, Job, Report, Workspace, wait::wait, workspace::Interrupted};
use crate::{
    guest_memory::GuestMemory,
    inject::Step,
    jobs::Answer,
    mmu::{Change, Context, Progress},
};

/// How far the entries of a batch came.
enum Reached {
    End,
    Interrupted { index: usize, at: Option<u64> },
}

impl Engine {
    /// Executes the MMU batch in `request`, which is the whole device-readable part of a chain in private memory. Afterwards
    /// `workspace` has the entries' statuses.
    ///
    /// `None`: the worker is wanted outside the gate, and the batch is not done. Execute the same request again: it goes on
    /// where it was.
    pub fn execute_map(
        &self,
        request: &[u8],
        job: &Job<'_>,
        workspace: &mut Workspace,
    ) -> Option<Report> {
        let started = Instant::now();
        let resumed = (workspace.map.interrupted.take()).filter(|before| before.request == request);
        let op = Self::first_map_op(request).map(MapOp::name);
        let wanted = match &resumed {
            None => self.faults.batch(job.role, op),
            Some(before) => before.wanted,
        };
        if resumed.is_none() && !wanted.delay.is_zero() {
            wait(wanted.delay, job);
        }
        if wanted.die == Some(Step::BeforeCopy) {
            Step::BeforeCopy.die();
        }
        let cookie = Self::cookie_of(request);
        let from = match resumed {
            Some(Interrupted { index, at, .. }) => (index, at),
            None => {
                workspace.reset(0);
                (0, None)
            }
        };
        let mut report = match wanted.fail {
            Some(status) => Report::refusal(status, cookie),
            None => match self.run_map(request, from, job, workspace) {
                Ok((with_statuses, Reached::End)) => self.report(with_statuses, cookie, workspace),
                Ok((_, Reached::Interrupted { index, at })) => {
                    workspace.map.interrupted = Some(Interrupted {
                        request: request.to_vec(),
                        index,
                        at,
                        wanted,
                    });
                    return None;
                }
                Err(status) => {
                    workspace.reset(0);
                    Report::refusal(status, cookie)
                }
            },
        };
        if wanted.die == Some(Step::AfterCopy) {
            Step::AfterCopy.die();
        }
        if wanted.wrong_cookie {
            report.completion.cookie = U64::new(!cookie);
        }
        report.delivery = wanted.delivery;
        report.measured = started.elapsed().saturating_sub(wanted.delay);
        let elapsed = u32::try_from(started.elapsed().as_nanos()).unwrap_or(u32::MAX);
        report.completion.device_ns = U32::new(elapsed);
        Some(report)
    }

    /// The operation of an MMU batch's first entry.
    pub fn first_map_op(request: &[u8]) -> Option<MapOp> {
        MapOp::from_wire(*request.get(MAP_HEADER_BYTES)?)
    }

    /// Checks the header and runs the entries. `Ok` says whether a status array was asked for; `Err` is the status of a batch of
    /// which nothing was executed.
    fn run_map(
        &self,
        request: &[u8],
        from: (usize, Option<u64>),
        job: &Job<'_>,
        workspace: &mut Workspace,
    ) -> Result<(bool, Reached), Status> {
        let (header, body) = MapHeader::read_from_prefix(request).map_err(|_| Status::BadLength)?;
        header.validate(self.shape.jobs.max_map_entries, self.features())?;
        let with_statuses = BatchFlags(header.flags).contains(BatchFlags::STATUS_ARRAY);
        let count = header.entry_count.get();
        if with_statuses && job.status_room < status_array_bytes(count) {
            return Err(Status::BadLength);
        }
        let entries = <[MapEntry]>::ref_from_bytes(body).map_err(|_| Status::BadLength)?;
        if entries.len() != count as usize {
            return Err(Status::BadLength);
        }
        // Held to the end: a session does not change hands while a batch of it runs.
        let session = self.session.read();
        session.check(header.generation.get())?;
        let context = (self.contexts.get(header.context.get())).ok_or(Status::BadContext)?;
        if from == (0, None) {
            workspace.reset(count);
        }
        let reached = self.run_map_entries(entries, from, &context, job, workspace);
        Ok((with_statuses, reached))
    }

    /// Executes entries from `from` on. Changes that follow each other share a slice, so that jobs are interrupted once for
    /// many of them.
    fn run_map_entries(
        &self,
        entries: &[MapEntry],
        from: (usize, Option<u64>),
        context: &Context,
        job: &Job<'_>,
        workspace: &mut Workspace,
    ) -> Reached {
        let has_faults = self.faults.any();
        let (mut index, mut at) = from;
        while let Some(entry) = entries.get(index) {
            if job.pace.is_wanted() && (index, at) != from {
                return Reached::Interrupted { index, at };
            }
            let op = match self.begin_map_entry(entry, at, has_faults, job) {
                Ok(op) => op,
                Err(status) => return fail(entry, index, status, workspace),
            };
            if let Some(answer) = answer_of(entry, op) {
                let answered = answer.and_then(|answer| {
                    (self.jobs).answer(context.number(), entry.address.get(), answer)
                });
                if let Err(status) = answered {
                    return fail(entry, index, status, workspace);
                }
                succeed(entry, op, index, workspace);
                index += 1;
                continue;
            }
            let made = context.edit(|edit| {
                loop {
                    let entry = &entries[index];
                    let (Some(change), Some(op)) = (Change::of(entry), MapOp::from_wire(entry.op))
                    else {
                        return Ok(());
                    };
                    check_target(&change, job.guest)?;
                    match edit.make(&change, at.unwrap_or(change.start()))? {
                        Progress::Done => {
                            succeed(entry, op, index, workspace);
                            (index, at) = (index + 1, None);
                        }
                        Progress::Upto(reached) => {
                            at = Some(reached);
                            return Ok(());
                        }
                    }
                    // What is not sound, an answer, and what faults want of an entry are for the outer loop.
                    let is_next_sound = (entries.get(index))
                        .is_some_and(|next| !has_faults && next.validate(&self.limits).is_ok());
                    if !is_next_sound || edit.is_over() || job.pace.is_wanted() {
                        return Ok(());
                    }
                }
            });
            if let Err(status) = made.unwrap_or(Err(Status::BadContext)) {
                return fail(&entries[index], index, status, workspace);
            }
        }
        Reached::End
    }

    /// Checks an entry, of which all is done below address `at`, and does to it what injected faults want at its beginning.
    fn begin_map_entry(
        &self,
        entry: &MapEntry,
        at: Option<u64>,
        has_faults: bool,
        job: &Job<'_>,
    ) -> Result<MapOp, Status> {
        let op = entry.validate(&self.limits)?;
        if at.is_none() && has_faults {
            let wanted = self.faults.entry(job.role, op.name());
            if !wanted.delay.is_zero() {
                wait(wanted.delay, job);
            }
            if let Some(status) = wanted.fail {
                return Err(status);
            }
        }
        Ok(op)
    }
}

/// The answer to a page fault that an entry is, if it is one.
fn answer_of(entry: &MapEntry, op: MapOp) -> Option<Result<Answer, Status>> {
    match op {
        MapOp::Resume => Some(Ok(Answer::Resume)),
        MapOp::Fail => Some(entry.failure().map(Answer::Fail)),
        MapOp::Map | MapOp::Unmap | MapOp::Protect => None,
    }
}

fn succeed(entry: &MapEntry, op: MapOp, index: usize, workspace: &mut Workspace) {
    workspace.note_success(index);
    let count = workspace.map.of(op);
    count.ok += 1;
    if op == MapOp::Map {
        // 1 GiB an entry at most.
        count.bytes = count.bytes.saturating_add(entry.len.get());
    }
}

/// An entry failed, and with it ends the batch.
fn fail(entry: &MapEntry, index: usize, status: Status, workspace: &mut Workspace) -> Reached {
    let op = MapOp::from_wire(entry.op).unwrap_or(MapOp::Map);
    workspace.map.of(op).failed += 1;
    workspace.note_failure(index, status);
    Reached::End
}

/// What is mapped must be in the guest's memory table now. Each access looks again: the table may change.
fn check_target(change: &Change, guest: &GuestMemory) -> Result<(), Status> {
    let is_known = match change.target_in_guest() {
        Some((target, len)) => guest.contains(target, len),
        None => true,
    };
    is_known.then_some(()).ok_or(Status::BadGuestAddress)
}

const _: () = assert!(MAP_ENTRY_BYTES == size_of::<MapEntry>());
