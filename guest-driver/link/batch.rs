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
        Returned, //
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
use kernel::{
    prelude::*,
    sync::atomic::ordering::Relaxed,
    time::Delta, //
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
    lane: Lane,
    entries: usize,
    bytes: usize,
    epoch: u32,
}

impl<'a> Batch<'a> {
    /// Starts a batch of single entries.
    ///
    /// # Errors
    ///
    /// `ENODEV`: the device is dead.
    pub(crate) fn of_entries(link: &'a Link, lane: Lane) -> Result<Self> {
        Self::new(link, lane, BatchKind::Entries)
    }

    /// Starts a page list: 4 KiB pages against one extent of device memory that starts at
    /// `device_address` (bytes).
    ///
    /// # Errors
    ///
    /// `ENODEV`: the device is dead.
    pub(crate) fn of_pages(
        link: &'a Link,
        lane: Lane,
        op: Op,
        device_address: u64,
    ) -> Result<Self> {
        let mut batch = Self::new(link, lane, BatchKind::PageList)?;
        batch.append(PageList::new(op, PAGE_SHIFT, device_address).as_bytes())?;
        Ok(batch)
    }

    fn new(link: &'a Link, lane: Lane, kind: BatchKind) -> Result<Self> {
        link.ready()?;
        let epoch = link.epoch.load(Relaxed);
        let (queue, pool) = link.lane(lane)?;
        Ok(Self {
            link,
            queue,
            pool,
            request: Some(pool.take()),
            kind,
            lane,
            entries: 0,
            bytes: HEADER_BYTES,
            epoch,
        })
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

    fn push(&mut self, bytes: &[u8]) -> Result {
        if self.entries == self.link.max_entries(self.lane) {
            return Err(ENOSPC);
        }
        self.append(bytes)?;
        self.entries += 1;
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
        self.push(entry.as_bytes())
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
        self.push(&address.to_le_bytes())
    }

    /// Has the device execute the batch, and waits for it. When this returns the device does not
    /// touch any memory of the batch any more.
    pub(crate) fn run(mut self) -> Outcome<'a> {
        let entries = self.entries;
        let Some(mut request) = self.request.take() else {
            return Outcome::failed(self.pool, None, entries);
        };
        if entries == 0 {
            return Outcome::failed(self.pool, Some(request), 0);
        }
        let cookie = self.link.next_cookie();
        // CAST: `push` keeps the count below the device's limit, which is 32 bits.
        let header = BatchHeader::new(
            self.kind,
            BatchFlags::STATUS_ARRAY,
            entries as u32,
            cookie,
            self.link.generation(),
        );
        let writable = COMPLETION_BYTES + status_array_bytes(entries as u32);
        if let Some(place) = request.readable().get_mut(..HEADER_BYTES) {
            place.copy_from_slice(header.as_bytes());
        }
        request.writable().fill(0);

        let stats = self.link.stats();
        let submitted = match self.queue.submit(request, self.bytes, writable) {
            Ok((submitted, rang)) => {
                stats.batches.add(1);
                stats.doorbells.add(u64::from(rang));
                submitted
            }
            Err((error, request)) => {
                if error == EIO {
                    self.link.queue_broken(self.epoch);
                }
                return Outcome::failed(self.pool, Some(request), entries);
            }
        };
        match self.queue.wait(submitted, POLL, self.link.timeout) {
            Returned::Used(mut request, used) => {
                self.link.answered();
                let all_ok = match check(request.writable(), used, cookie, entries) {
                    Ok(all_ok) => all_ok,
                    Err(problem) => {
                        stats.protocol_errors.add(1);
                        dev_warn!(
                            self.link.device(),
                            "a batch was answered with nonsense: {}\n",
                            problem
                        );
                        return Outcome::failed(self.pool, Some(request), entries);
                    }
                };
                if !all_ok {
                    self.link.events.collect(self.link);
                }
                Outcome {
                    pool: self.pool,
                    request: Some(request),
                    entries,
                    answered: true,
                }
            }
            Returned::Cancelled(request) => Outcome::failed(self.pool, Some(request), entries),
            Returned::Pending(submitted) => {
                let request = self.link.not_answered(submitted);
                Outcome::failed(self.pool, request, entries)
            }
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.pool.give(request);
        }
    }
}

/// Checks an answer as far as it concerns the whole batch; says whether every entry was executed.
fn check(
    answer: &[u8],
    used: u32,
    cookie: u64,
    entries: usize,
) -> core::result::Result<bool, &'static str> {
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
    match status {
        Status::Ok if record.entries_ok.get() as usize == entries => Ok(true),
        Status::Ok => Err("success, and entries that were not executed"),
        Status::NotAttempted => Err("no status"),
        _ => Ok(false),
    }
}

/// What became of a batch. Keeps the request until it is dropped.
pub(crate) struct Outcome<'a> {
    pool: &'a RequestPool,
    request: Option<Idle>,
    entries: usize,
    answered: bool,
}

impl<'a> Outcome<'a> {
    /// No entry was executed, or nobody knows.
    fn failed(pool: &'a RequestPool, request: Option<Idle>, entries: usize) -> Self {
        Self {
            pool,
            request,
            entries,
            answered: false,
        }
    }

    /// Whether the device says that it executed the entry. Everything else is a failure.
    pub(crate) fn is_ok(&mut self, entry: usize) -> bool {
        if !self.answered || entry >= self.entries {
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
        self.answered
    }
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.pool.give(request);
        }
    }
}
