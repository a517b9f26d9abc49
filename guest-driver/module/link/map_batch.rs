// SPDX-License-Identifier: GPL-2.0-only

//! Batches that change the page tables of a context, and answer page faults. Nothing here allocates.

use super::{
    answer::is_without_session,
    request_pool::RequestPool,
    state::Link,
    why::Why, //
};
use crate::sys::{
    services::log_limit::warn_limited,
    virtio::request::{
        Idle,
        Returned,
        Written, //
    }, //
};
use hmm_protocol::{
    BatchFlags,
    Completion,
    MapEntry,
    MapHeader,
    Status,
    COMPLETION_BYTES,
    MAP_ENTRY_BYTES,
    MAP_HEADER_BYTES,
    NO_ERROR_INDEX, //
};
use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

/// How long to poll for an answer before sleeping.
const POLL: Delta = Delta::from_micros(50);

/// A batch that is being written.
pub(crate) struct MapBatch<'a> {
    link: &'a Link,
    pool: &'a RequestPool,
    // `None` only once the request is handed on.
    request: Option<Idle>,
    context: u32,
    entries: usize,
    most: usize,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapped {
    /// Every entry was executed.
    All,
    /// The entry with this index failed, and those after it were not executed.
    Failed(usize, Status),
    /// The batch was refused, and no entry was executed.
    Refused(Status),
    /// The device was reset: no context exists any more.
    Reset,
}

impl<'a> MapBatch<'a> {
    /// A batch for a context. Sleeps while too many are on their way.
    pub(crate) fn new(link: &'a Link, context: u32) -> Self {
        Self::of(link, context, &link.mmu.maps, link.mmu.entries)
    }

    fn of(link: &'a Link, context: u32, pool: &'a RequestPool, most: usize) -> Self {
        Self {
            link,
            pool,
            request: Some(pool.take()),
            context,
            entries: 0,
            most,
        }
    }

    /// Entries that still fit.
    pub(crate) fn room(&self) -> usize {
        self.most - self.entries
    }

    /// Entries so far.
    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// Adds an entry.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: the batch is full.
    pub(crate) fn push(&mut self, entry: MapEntry) -> Result {
        if self.room() == 0 {
            return Err(ENOSPC);
        }
        let start = MAP_HEADER_BYTES + self.entries * MAP_ENTRY_BYTES;
        let request = self.request.as_mut().ok_or(EINVAL)?;
        request
            .readable()
            .get_mut(start..start + MAP_ENTRY_BYTES)
            .ok_or(ENOSPC)?
            .copy_from_slice(entry.as_bytes());
        self.entries += 1;
        Ok(())
    }

    /// Hands the batch to the device, and waits for the answer. `resets` is how often the device had been
    /// reset when the context was created. If the device does not answer, or answers nonsense, it is
    /// reset.
    pub(crate) fn execute(mut self, resets: u32) -> Mapped {
        let link = self.link;
        let Some(mut request) = self.request.take() else {
            return Mapped::Refused(Status::Internal);
        };
        let cookie = link.next_cookie();
        // CAST: At most `MAP_ENTRIES`.
        let header = MapHeader::new(
            BatchFlags::default(),
            self.entries as u32,
            cookie,
            link.generation(),
            self.context,
        );
        if let Some(place) = request.readable().get_mut(..MAP_HEADER_BYTES) {
            place.copy_from_slice(header.as_bytes());
        }
        request.clear_written(COMPLETION_BYTES);
        let readable = MAP_HEADER_BYTES + self.entries * MAP_ENTRY_BYTES;
        let mapped = self.exchange(request, readable, cookie, resets);
        if mapped == Mapped::Reset && link.resets() == resets {
            link.repair(resets, Why::NoAnswer);
        }
        mapped
    }

    /// Sends the request and checks the answer; [`Mapped::Reset`] also if the device is to be reset.
    fn exchange(&self, request: Idle, readable: usize, cookie: u64, resets: u32) -> Mapped {
        let link = self.link;
        let Ok(queue) = link.mmu_queue() else {
            self.pool.give(request);
            return Mapped::Reset;
        };
        let submitted = match queue.submit(request, readable, COMPLETION_BYTES) {
            Ok((submitted, _)) => submitted,
            Err((_, request)) => {
                self.pool.give(request);
                return Mapped::Reset;
            }
        };
        match queue.wait(submitted, POLL, link.timeout) {
            Returned::Used(request, used) => {
                let answer = check(request.written(), used, cookie, self.entries);
                self.pool.give(request);
                if let Ok(Mapped::Refused(status)) = answer {
                    if is_without_session(status) {
                        link.repair(resets, Why::NoSession);
                        return Mapped::Reset;
                    }
                }
                link.answered();
                answer.unwrap_or_else(|problem| {
                    link.stats().protocol_errors.add(1);
                    warn_limited!(
                        link.device(),
                        "a batch of mappings was answered with nonsense: {}\n",
                        problem
                    );
                    Mapped::Reset
                })
            }
            Returned::Cancelled(request) => {
                self.pool.give(request);
                Mapped::Reset
            }
            Returned::Pending(submitted) => {
                // Only the reset returns the request.
                link.repair(resets, Why::NoAnswer);
                while !submitted.is_returned() {
                    fsleep(POLL);
                }
                if let Some(request) = submitted.into_returned() {
                    self.pool.give(request);
                }
                Mapped::Reset
            }
        }
    }
}

impl Drop for MapBatch<'_> {
    fn drop(&mut self) {
        if let Some(mut request) = self.request.take() {
            request.end_use();
            self.pool.give(request);
        }
    }
}

impl Link {
    /// Has the device take away what `entry` says. Returns whether it has, or was reset since the context was created,
    /// when it had been reset `resets` times.
    pub(super) fn has_unmapped(&self, context: u32, resets: u32, entry: MapEntry) -> bool {
        if self.resets() != resets {
            return true;
        }
        let mut batch = MapBatch::of(self, context, &self.mmu.unmaps, 1);
        let executed = match batch.push(entry) {
            Ok(()) => batch.execute(resets),
            Err(_) => Mapped::Refused(Status::Internal),
        };
        let is_done = executed == Mapped::All || self.resets() != resets;
        if !is_done {
            // It knows the range and the context.
            warn_limited!(self.device(), "the device refused to unmap\n");
        }
        is_done
    }
}

/// Checks an answer, of which nothing is believed.
fn check(
    written: Written<'_>,
    used: u32,
    cookie: u64,
    entries: usize,
) -> core::result::Result<Mapped, &'static str> {
    let record: [u8; COMPLETION_BYTES] = written.read().ok_or("short buffer")?;
    let record = Completion::read_from_bytes(&record).map_err(|_| "short buffer")?;
    let status = Status::from_wire(record.status).ok_or("unknown status")?;
    if used as usize != COMPLETION_BYTES {
        return Err("wrong length");
    }
    if record.cookie.get() != cookie {
        return Err("another batch's cookie");
    }
    let (done, first) = (record.entries_ok.get() as usize, record.first_error.get());
    match status {
        Status::Ok if done == entries => Ok(Mapped::All),
        Status::Ok => Err("success, and entries that were not executed"),
        status if first == NO_ERROR_INDEX && done == 0 => Ok(Mapped::Refused(status)),
        status if first as usize == done && done < entries => Ok(Mapped::Failed(done, status)),
        _ => Err("an index that makes no sense"),
    }
}
