// SPDX-License-Identifier: GPL-2.0-only

//! The system side of a migration's pages as the device sees it.

use super::{
    entry::{
        page_of,
        pages_of, //
    },
    Collected,
    Cursor,
    Inner,
    Migration,
    Transfer, //
};
use crate::sys::virtio::virtqueue::{
    DmaDirection,
    Queue, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// Pages that are mapped for the device, or unmapped, with interrupts off.
const MAPPED_AT_ONCE: usize = 64;

impl<'a> Migration<'a, Collected> {
    /// Maps the system side of everything that is to be copied, for `queue`'s device. What cannot
    /// be mapped loses its destination; returns how many pages that are.
    ///
    /// # Errors
    ///
    /// `ENODEV`: the queue is closed. Nothing lost its destination.
    pub(crate) fn map(&mut self, queue: &'a Queue, direction: DmaDirection) -> Result<usize> {
        self.inner.unmap();
        self.inner.mapped = Some((queue, direction));
        let mut complete = true;
        let pages = self.inner.pages;
        let buffers = &mut *self.inner.lease.buffers;
        let entries = match direction {
            DmaDirection::ToDevice => &buffers.src,
            DmaDirection::FromDevice => &buffers.dst,
        };
        let mut index = 0;
        while index < pages {
            let mapper = queue.mapper();
            for _ in 0..MAPPED_AT_ONCE {
                if index >= pages {
                    break;
                }
                let entry = entries.get(index).copied().unwrap_or(0);
                let Some(page) = page_of(entry) else {
                    index += 1;
                    continue;
                };
                let bytes = pages_of(entry) * PAGE_SIZE;
                // SAFETY: The migration holds the page until it is dropped, and unmaps it before.
                let address = unsafe { mapper.map(page, bytes, direction) };
                if matches!(address, Err(error) if error == ENODEV) {
                    return Err(ENODEV);
                }
                complete &= address.is_ok();
                if let Some(slot) = buffers.dma.get_mut(index) {
                    *slot = address.ok().map(|address| (address, bytes));
                }
                index += pages_of(entry);
            }
        }
        let mut lost = 0;
        if !complete {
            let mut cursor = Cursor::default();
            while let Some(transfer) = self.next_transfer(&mut cursor) {
                if transfer.source.is_some() && self.dma_address(&transfer).is_none() {
                    self.clear_destination(transfer.index());
                    lost += transfer.pages;
                }
            }
        }
        Ok(lost)
    }

    /// Where the device finds the system side of a transfer; `None` if there is nothing to read.
    pub(crate) fn dma_address(&self, transfer: &Transfer) -> Option<u64> {
        let (_, direction) = self.inner.mapped?;
        let (slot, offset) = match direction {
            // A huge page is mapped as a whole, wherever its pages go.
            DmaDirection::ToDevice => (transfer.head, transfer.tail * PAGE_SIZE),
            DmaDirection::FromDevice => (transfer.index(), 0),
        };
        let (address, _) = self.inner.lease.buffers.dma.get(slot).copied().flatten()?;
        Some(address.get() + offset as u64)
    }
}

impl Inner<'_> {
    /// Undoes the mapping of a destination that the device writes. To be called before the page is
    /// freed: undoing the mapping of a bounce buffer writes to the page.
    pub(super) fn unmap_destination(&mut self, index: usize) {
        let Some((queue, DmaDirection::FromDevice)) = self.mapped else {
            return;
        };
        let slot = self.lease.buffers.dma.get_mut(index);
        if let Some((address, bytes)) = slot.and_then(Option::take) {
            // SAFETY: `map` made the address with this queue, length and direction; the device is
            // done (see the documentation of `migrate`).
            unsafe {
                queue
                    .mapper()
                    .unmap(address, bytes, DmaDirection::FromDevice)
            };
        }
    }

    /// Undoes `map`.
    pub(super) fn unmap(&mut self) {
        let Some((queue, direction)) = self.mapped.take() else {
            return;
        };
        let slots = &mut self.lease.buffers.dma;
        let mut index = 0;
        while index < self.pages {
            let mapper = queue.mapper();
            for _ in 0..MAPPED_AT_ONCE {
                if index >= self.pages {
                    break;
                }
                let Some((address, bytes)) = slots.get_mut(index).and_then(Option::take) else {
                    index += 1;
                    continue;
                };
                // SAFETY: `map` made the address with this queue, length and direction; the device
                // is done (see the documentation of `migrate`).
                unsafe { mapper.unmap(address, bytes, direction) };
                index += bytes / PAGE_SIZE;
            }
        }
    }
}
