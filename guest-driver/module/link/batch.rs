// SPDX-License-Identifier: GPL-2.0-only

//! Batches: what is to be copied.

use super::{
    in_flight::InFlight,
    request_pool::RequestPool,
    state::{
        Lane,
        Link, //
    }, //
};
use crate::sys::{
    services::trace::{
        self,
        BatchEvent, //
    },
    virtio::{
        request::{
            Carrier,
            Idle, //
        },
        virtqueue::Queue, //
    }, //
};
use hmm_protocol::{
    status_array_bytes,
    BatchFlags,
    BatchHeader,
    BatchKind,
    CopyEntry,
    Op,
    PageList,
    COMPLETION_BYTES,
    HEADER_BYTES, //
};
use hmm_uapi::Trigger;
use kernel::{
    prelude::*,
    sync::atomic::ordering::Relaxed,
    time::Instant, //
};
use zerocopy::IntoBytes;

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

    /// The request that the batch will go with, for the same.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the request is handed on. That does not happen before [`Batch::submit`].
    pub(crate) fn carrier(&self) -> Result<Carrier> {
        Ok(self.request.as_ref().ok_or(EINVAL)?.carrier())
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
            rang: false,
            epoch: self.epoch,
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
        request.clear_written(writable);

        trace::batch_submit(self.link.device(), &flight.event);
        let stats = self.link.stats();
        match self.queue.submit(request, self.bytes, writable) {
            Ok((submitted, rang)) => {
                stats.batches.add(1);
                stats.doorbells.add(u64::from(rang));
                flight.submitted = Some(submitted);
                flight.rang = rang;
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
        if let Some(mut request) = self.request.take() {
            request.end_use();
            self.pool.give(request);
        }
    }
}
