// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Batches: from the bytes of a request to transfers, and from their results to a completion record.

use std::time::{Duration, Instant};

use hmm_protocol::{
    BatchFlags, BatchHeader, BatchKind, Completion, CopyEntry, EntryFlags, Features, HEADER_BYTES,
    NO_ERROR_INDEX, Op, PAGE_ADDRESS_SKIP, PAGE_ADDRESS_ZERO, PAGE_LIST_BYTES, PageList, Status,
    status_array_bytes,
};
use zerocopy::{
    FromBytes,
    byteorder::little_endian::{U16, U32, U64},
};

use super::{
    Engine, Job, Report, Workspace,
    transfer::{Transfer, Transferrer},
    wait::{wait, wait_until},
};
use crate::{
    inject::{Delivery, Step},
    layout::Role,
};

const PAGE_BYTES: u64 = 4096;
/// A batch of more bytes than this is copied past the caches: its destination would only push other data out.
const LARGE_BATCH_BYTES: u64 = 256 << 10;

/// Entries that are transferred in one go because they lie side by side on both sides.
struct Run {
    first: usize,
    count: usize,
    transfer: Transfer,
}

impl Engine {
    /// Executes the batch in `request`, which is the whole device-readable part of a chain in private memory.
    /// Afterwards `workspace` has the entries' statuses.
    pub fn execute(&self, request: &[u8], job: &Job<'_>, workspace: &mut Workspace) -> Report {
        let started = Instant::now();
        workspace.reset(0);
        let wanted = self
            .faults
            .batch(job.role, Self::first_op(request).map(Op::name));
        if !wanted.delay.is_zero() {
            wait(wanted.delay, job);
        }
        if wanted.die == Some(Step::BeforeCopy) {
            Step::BeforeCopy.die();
        }
        let cookie = Self::cookie_of(request);
        let copying = Instant::now();
        let mut report = match wanted.fail {
            Some(status) => Report::refusal(status, cookie),
            None => match self.run(request, job, workspace) {
                Ok(with_statuses) => self.report(with_statuses, cookie, workspace),
                Err(status) => {
                    workspace.reset(0);
                    Report::refusal(status, cookie)
                }
            },
        };
        report.measured = copying.elapsed();
        if let Some(link) = &self.link {
            let bytes = |op: Op| workspace.ops[op as usize].bytes;
            let complete = link.complete(copying, bytes(Op::ToDevice), bytes(Op::ToSystem));
            wait_until(complete, job);
        }
        if wanted.die == Some(Step::AfterCopy) {
            Step::AfterCopy.die();
        }
        if wanted.wrong_cookie {
            report.completion.cookie = U64::new(!cookie);
        }
        report.delivery = wanted.delivery;
        let elapsed = u32::try_from(started.elapsed().as_nanos()).unwrap_or(u32::MAX);
        report.completion.device_ns = U32::new(elapsed);
        report
    }

    pub(super) fn report(&self, with_statuses: bool, cookie: u64, workspace: &Workspace) -> Report {
        let (first_error, status) = workspace
            .first_error
            .unwrap_or((NO_ERROR_INDEX, Status::Ok));
        Report {
            completion: Completion {
                status: status.to_wire(),
                flags: 0,
                reserved: U16::new(0),
                entries_ok: U32::new(workspace.entries_ok),
                bytes_done: U64::new(workspace.bytes_done),
                first_error: U32::new(first_error),
                device_ns: U32::new(0),
                cookie: U64::new(cookie),
            },
            with_statuses,
            status,
            delivery: Delivery::default(),
            measured: Duration::ZERO,
        }
    }

    /// Checks the header and runs the body. `Ok` says whether a status array was asked for; `Err` is the status of a
    /// batch of which nothing was executed.
    fn run(
        &self,
        request: &[u8],
        job: &Job<'_>,
        workspace: &mut Workspace,
    ) -> Result<bool, Status> {
        let (header, body) =
            BatchHeader::read_from_prefix(request).map_err(|_| Status::BadLength)?;
        let max_entries = if job.role == Role::Urgent {
            self.limits.max_urgent_entries
        } else {
            self.limits.max_batch_entries
        };
        let features = self.features();
        if job.role == Role::Urgent && !features.contains(Features::URGENT_QUEUE) {
            return Err(Status::BadOp);
        }
        let kind = header.validate(max_entries, features)?;
        let with_statuses = header.flags().contains(BatchFlags::STATUS_ARRAY);
        let entries = header.entry_count.get();
        if with_statuses && job.status_room < status_array_bytes(entries) {
            return Err(Status::BadLength);
        }
        // Held to the end: a session does not change hands while a batch of it runs.
        let session = self.session.read();
        session.check(header.generation.get())?;
        match kind {
            BatchKind::Entries => self.run_entries(&header, body, job, workspace)?,
            BatchKind::PageList => self.run_page_list(&header, body, job, workspace)?,
        }
        Ok(with_statuses)
    }

    fn run_entries(
        &self,
        header: &BatchHeader,
        body: &[u8],
        job: &Job<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), Status> {
        let entries = <[CopyEntry]>::ref_from_bytes(body).map_err(|_| Status::BadLength)?;
        if entries.len() != header.entry_count.get() as usize {
            return Err(Status::BadLength);
        }
        let bytes: u64 = entries.iter().map(|entry| u64::from(entry.len.get())).sum();
        if bytes > self.limits.max_batch_bytes {
            return Err(Status::BadLength);
        }
        let features = self.features();
        workspace.reset(header.entry_count.get());
        self.run_items(header, bytes, job, workspace, |index| {
            let entry = &entries[index];
            match entry.validate(&self.limits, features) {
                Ok(op) => Ok(Transfer {
                    op,
                    flags: EntryFlags(entry.flags),
                    address: entry.address.get(),
                    device_address: entry.device_address.get(),
                    len: u64::from(entry.len.get()),
                }),
                Err(status) => Err((Op::from_wire(entry.op).unwrap_or(Op::Nop), status)),
            }
        });
        Ok(())
    }

    fn run_page_list(
        &self,
        header: &BatchHeader,
        body: &[u8],
        job: &Job<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), Status> {
        let (list, addresses) = PageList::read_from_prefix(body).map_err(|_| Status::BadLength)?;
        debug_assert_eq!(
            HEADER_BYTES + PAGE_LIST_BYTES + addresses.len(),
            HEADER_BYTES + body.len()
        );
        let addresses = <[U64]>::ref_from_bytes(addresses).map_err(|_| Status::BadLength)?;
        let pages = header.entry_count.get();
        if addresses.len() != pages as usize {
            return Err(Status::BadLength);
        }
        let op = list.validate(pages, &self.limits, self.features())?;
        let bytes = u64::from(pages) * PAGE_BYTES;
        if bytes > self.limits.max_batch_bytes {
            return Err(Status::BadLength);
        }
        let (flags, start) = (EntryFlags(list.flags), list.device_address.get());
        workspace.reset(pages);
        self.run_items(header, bytes, job, workspace, |index| {
            let device_address = start + index as u64 * PAGE_BYTES;
            let address = addresses[index].get();
            match address {
                PAGE_ADDRESS_SKIP => Ok(Transfer::nothing()),
                PAGE_ADDRESS_ZERO if op == Op::ToDevice => Ok(Transfer {
                    op: Op::Fill,
                    flags,
                    address: 0,
                    device_address,
                    len: PAGE_BYTES,
                }),
                _ if address % 8 != 0 || address.checked_add(PAGE_BYTES).is_none() => {
                    Err((op, Status::BadGuestAddress))
                }
                _ => Ok(Transfer {
                    op,
                    flags,
                    address,
                    device_address,
                    len: PAGE_BYTES,
                }),
            }
        });
        Ok(())
    }

    /// Runs `item(0)`, `item(1)` … and notes what became of each. Neighbours that fit together go as one transfer.
    fn run_items(
        &self,
        header: &BatchHeader,
        batch_bytes: u64,
        job: &Job<'_>,
        workspace: &mut Workspace,
        item: impl Fn(usize) -> Result<Transfer, (Op, Status)>,
    ) {
        let large = job.role != Role::Urgent && batch_bytes > LARGE_BATCH_BYTES;
        let mut transferrer = Transferrer::new(self, job, large);
        let ordered = header.flags().contains(BatchFlags::ORDERED);
        let merge = !self.faults.any();
        let mut pending: Option<Run> = None;
        let mut go_on = true;
        for index in 0..header.entry_count.get() as usize {
            match item(index) {
                Ok(transfer) => {
                    if let Some(run) = &mut pending {
                        if merge && run.transfer.append(&transfer) {
                            run.count += 1;
                            continue;
                        }
                        transferrer.announce(&transfer);
                        go_on = finish(&mut transferrer, run, ordered, workspace, &item);
                    }
                    pending = Some(Run {
                        first: index,
                        count: 1,
                        transfer,
                    });
                }
                Err((op, status)) => {
                    if let Some(run) = pending.take() {
                        go_on = finish(&mut transferrer, &run, ordered, workspace, &item);
                    }
                    if go_on {
                        workspace.fail(index, op, status);
                        go_on = !ordered;
                    }
                }
            }
            if !go_on {
                return;
            }
        }
        if let Some(run) = pending {
            finish(&mut transferrer, &run, ordered, workspace, &item);
        }
    }
}

/// Transfers a run; if it fails as a whole, entry by entry, so that each gets its own status. Says whether to go on.
fn finish(
    transferrer: &mut Transferrer<'_>,
    run: &Run,
    ordered: bool,
    workspace: &mut Workspace,
    item: &impl Fn(usize) -> Result<Transfer, (Op, Status)>,
) -> bool {
    match transferrer.transfer(&run.transfer) {
        Ok(()) => {
            workspace.succeed(run.first, run.count, run.transfer.op, run.transfer.len);
            true
        }
        Err(status) if run.count == 1 => {
            workspace.fail(run.first, run.transfer.op, status);
            !ordered
        }
        Err(_) => {
            for index in run.first..run.first + run.count {
                let result = match item(index) {
                    Ok(transfer) => match transferrer.transfer(&transfer) {
                        Ok(()) => {
                            workspace.succeed(index, 1, transfer.op, transfer.len);
                            continue;
                        }
                        Err(status) => (transfer.op, status),
                    },
                    Err(refused) => refused,
                };
                workspace.fail(index, result.0, result.1);
                if ordered {
                    return false;
                }
            }
            true
        }
    }
}
