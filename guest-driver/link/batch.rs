// SPDX-License-Identifier: GPL-2.0-only

//! Batches: what is to be copied, and what became of it.

use super::{
    Lane,
    Link,
    RequestPool, //
};
use crate::sys::{
    request::{
        Idle,
        Returned,
        Submitted, //
    },
    trace::{
        self,
        BatchEvent, //
    },
    virtqueue::Queue, //
};
use hmm_protocol::{
    status_array_bytes,
    BatchFlags,
    BatchHeader,
    BatchKind,
    Completion,
    CopyEntry,
    Op,
    PageList,
    Status,
    COMPLETION_BYTES,
    HEADER_BYTES, //
};
use hmm_uapi::Trigger;
use kernel::{
    prelude::*,
    sync::atomic::ordering::Relaxed,
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

/// How long to poll for an answer before sleeping: about what it takes to sleep and wake up.
const POLL: Delta = Delta::from_micros(50);
/// log2 of the page size, bytes.
const PAGE_SHIFT: u32 = 12;

/// A batch that is being written, and goes to the device with one submission.
pub(crate) struct Batch<'a> {
    link: &'a Link,
    queue: &'a Queue,
    pool: &'a RequestPool,
    // `None` only once the request is handed on.
    request: Option<Idle>,
    kind: BatchKind,
    trigger: Trigger,
    /// What most entries are: to the device, or to system memory.
    op: Op,
    entries: usize,
    /// Bytes of the request that are written.
    bytes: usize,
    /// Bytes that the entries stand for.
    data_bytes: u64,
    epoch: u32,
}

impl<'a> Batch<'a> {
    /// Starts a page list: 4 KiB pages against one extent of device memory that starts at
    /// `device_address` (bytes).
    ///
    /// # Errors
    ///
    /// `ENODEV`: the device is dead.
    pub(crate) fn of_pages(
        link: &'a Link,
        trigger: Trigger,
        op: Op,
        device_address: u64,
    ) -> Result<Self> {
        let mut batch = Self::new(link, trigger, op)?;
        batch.append(PageList::new(op, PAGE_SHIFT, device_address).as_bytes())?;
        Ok(batch)
    }

    fn new(link: &'a Link, trigger: Trigger, op: Op) -> Result<Self> {
        link.ready()?;
        let epoch = link.epoch.load(Relaxed);
        let (queue, pool) = link.lane(Lane::of(trigger))?;
        Ok(Self {
            link,
            queue,
            pool,
            request: Some(pool.take()),
            kind: BatchKind::PageList,
            trigger,
            op,
            entries: 0,
            bytes: HEADER_BYTES,
            data_bytes: 0,
            epoch,
        })
    }

    /// Begins anew, as a batch of single entries for the same queue.
    pub(crate) fn into_entries(mut self) -> Self {
        self.kind = BatchKind::Entries;
        self.bytes = HEADER_BYTES;
        self.entries = 0;
        self.data_bytes = 0;
        self
    }

    /// The queue that the batch will go to, for DMA mappings.
    pub(crate) fn queue(&self) -> &'a Queue {
        self.queue
    }

    fn append(&mut self, bytes: &[u8]) -> Result {
        let request = self.request.as_mut().ok_or(EINVAL)?;
        let end = self.bytes + bytes.len();
        request
            .readable()
            .get_mut(self.bytes..end)
            .ok_or(ENOSPC)?
            .copy_from_slice(bytes);
        self.bytes = end;
        Ok(())
    }

    fn push(&mut self, bytes: &[u8], data_bytes: u64) -> Result {
        if self.entries == self.link.max_entries(Lane::of(self.trigger)) {
            return Err(ENOSPC);
        }
        self.append(bytes)?;
        self.entries += 1;
        self.data_bytes += data_bytes;
        Ok(())
    }

    /// Adds an entry to a batch of entries.
    ///
    /// # Errors
    ///
    /// `ENOSPC` the batch is full, `EINVAL` it is a page list.
    pub(crate) fn push_entry(&mut self, entry: CopyEntry) -> Result {
        if self.kind != BatchKind::Entries {
            return Err(EINVAL);
        }
        self.push(entry.as_bytes(), u64::from(entry.len.get()))
    }

    /// Adds the DMA address of the next page to a page list, or `hmm_protocol::PAGE_ADDRESS_*`.
    ///
    /// # Errors
    ///
    /// `ENOSPC` the batch is full, `EINVAL` it is not a page list.
    pub(crate) fn push_page(&mut self, address: u64) -> Result {
        if self.kind != BatchKind::PageList {
            return Err(EINVAL);
        }
        self.push(&address.to_le_bytes(), 1 << PAGE_SHIFT)
    }

    /// Hands the batch to the device.
    pub(crate) fn submit(mut self) -> InFlight<'a> {
        let mut flight = InFlight {
            link: self.link,
            queue: self.queue,
            pool: self.pool,
            submitted: None,
            event: BatchEvent {
                cookie: self.link.next_cookie(),
                queue: self.queue.index(),
                trigger: self.trigger.name(),
                direction: self.op.name(),
                // CAST: `push` keeps the count below the device's limit, which is 32 bits.
                entries: self.entries as u32,
                bytes: self.data_bytes,
            },
            started: Instant::now(),
        };
        let Some(mut request) = self.request.take() else {
            return flight;
        };
        let entries = flight.event.entries;
        let header = BatchHeader::new(
            self.kind,
            BatchFlags::STATUS_ARRAY,
            entries,
            flight.event.cookie,
            self.link.generation(),
        );
        let writable = COMPLETION_BYTES + status_array_bytes(entries);
        if let Some(place) = request.readable().get_mut(..HEADER_BYTES) {
            place.copy_from_slice(header.as_bytes());
        }
        if let Some(answer) = request.writable().get_mut(..writable) {
            answer.fill(0);
        }

        trace::batch_submit(self.link.device(), &flight.event);
        let stats = self.link.stats();
        match self.queue.submit(request, self.bytes, writable) {
            Ok((submitted, rang)) => {
                stats.batches.add(1);
                stats.doorbells.add(u64::from(rang));
                flight.submitted = Some(submitted);
            }
            Err((error, request)) => {
                if error == EIO {
                    self.link.queue_broken(self.epoch);
                }
                self.pool.give(request);
                flight.trace_done("not_accepted", 0);
            }
        }
        flight
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.pool.give(request);
        }
    }
}

/// A batch that the device has, or that it never got. Dropping it waits, too.
#[must_use = "the device may still touch the batch's memory"]
pub(crate) struct InFlight<'a> {
    link: &'a Link,
    queue: &'a Queue,
    pool: &'a RequestPool,
    submitted: Option<Submitted>,
    event: BatchEvent,
    started: Instant<Monotonic>,
}

impl<'a> InFlight<'a> {
    /// Waits for the answer. When this returns the device does not touch any memory of the batch
    /// any more.
    pub(crate) fn wait(mut self) -> Outcome<'a> {
        self.finish()
    }

    fn trace_done(&self, result: &'static str, entries_ok: u32) {
        let device = self.link.device();
        trace::batch_done(device, &self.event, result, entries_ok, self.started);
    }

    fn finish(&mut self) -> Outcome<'a> {
        let entries = self.event.entries as usize;
        let mut outcome = Outcome {
            pool: self.pool,
            request: None,
            entries,
            answer: None,
        };
        let Some(submitted) = self.submitted.take() else {
            return outcome;
        };
        let mut result = "ok";
        outcome.request = match self.queue.wait(submitted, POLL, self.link.timeout) {
            Returned::Used(mut request, used) => {
                self.link.answered();
                match check(request.writable(), used, self.event.cookie, entries) {
                    Ok(answer) => {
                        if !answer.all_ok {
                            result = "failed";
                            self.link.events.collect(self.link);
                        }
                        outcome.answer = Some(answer);
                    }
                    Err(problem) => {
                        result = "bad_answer";
                        self.link.stats().protocol_errors.add(1);
                        dev_warn!(
                            self.link.device(),
                            "a batch was answered with nonsense: {}\n",
                            problem
                        );
                    }
                }
                Some(request)
            }
            Returned::Cancelled(request) => {
                result = "reset";
                Some(request)
            }
            Returned::Pending(submitted) => {
                result = "timeout";
                self.link.not_answered(submitted)
            }
        };
        self.trace_done(result, outcome.answer.map_or(0, |answer| answer.entries_ok));
        outcome
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        drop(self.finish());
    }
}

/// What the device says of a batch as a whole.
#[derive(Clone, Copy)]
struct Answer {
    /// Whether every entry was executed.
    all_ok: bool,
    entries_ok: u32,
    /// Bytes copied, and the time that the device took, ns, as it says.
    pace: (u64, u32),
}

/// Checks an answer as far as it concerns the whole batch.
fn check(
    answer: &[u8],
    used: u32,
    cookie: u64,
    entries: usize,
) -> core::result::Result<Answer, &'static str> {
    let (record, _) = Completion::read_from_prefix(answer).map_err(|_| "short buffer")?;
    let status = Status::from_wire(record.status).ok_or("unknown status")?;
    if record.cookie.get() != cookie {
        return Err("another batch's cookie");
    }
    if record.entries_ok.get() as usize > entries {
        return Err("more entries executed than there are");
    }
    // CAST: The number of entries was checked when the batch was written.
    let full = COMPLETION_BYTES + status_array_bytes(entries as u32);
    match used as usize {
        used if used == full => {}
        // A batch that is refused as a whole has no statuses of entries.
        COMPLETION_BYTES if status != Status::Ok && record.entries_ok.get() == 0 => {}
        _ => return Err("wrong length"),
    }
    let all_ok = match status {
        Status::Ok if record.entries_ok.get() as usize == entries => true,
        Status::Ok => return Err("success, and entries that were not executed"),
        Status::NotAttempted => return Err("no status"),
        _ => false,
    };
    Ok(Answer {
        all_ok,
        entries_ok: record.entries_ok.get(),
        pace: (record.bytes_done.get(), record.device_ns.get()),
    })
}

/// What became of a batch. Keeps the request until it is dropped.
pub(crate) struct Outcome<'a> {
    pool: &'a RequestPool,
    request: Option<Idle>,
    entries: usize,
    /// `None`: no entry was executed, or nobody knows.
    answer: Option<Answer>,
}

impl Outcome<'_> {
    /// Whether the device says that it executed the entry. Everything else is a failure.
    pub(crate) fn is_ok(&mut self, entry: usize) -> bool {
        if self.answer.is_none() || entry >= self.entries {
            return false;
        }
        let Some(request) = self.request.as_mut() else {
            return false;
        };
        request
            .writable()
            .get(COMPLETION_BYTES + entry)
            .is_some_and(|&status| status == Status::Ok.to_wire())
    }

    /// Whether the device answered at all, and sensibly.
    pub(crate) fn was_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// Whether the device says that it executed every entry.
    pub(crate) fn all_ok(&self) -> bool {
        self.answer.is_some_and(|answer| answer.all_ok)
    }

    /// Bytes that the device copied, and the time that it took, ns, if it executed everything. It
    /// is only what the device says.
    pub(crate) fn pace(&self) -> Option<(u64, u32)> {
        self.answer
            .filter(|answer| answer.all_ok)
            .map(|answer| answer.pace)
    }
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.pool.give(request);
        }
    }
}
