// SPDX-License-Identifier: GPL-2.0-only

//! The system side of a migration's pages as the device sees it.

use super::{
    entry::{
        page_of,
        pages_of, //
    },
    mapped::Mapped,
    Collected,
    Cursor,
    Inner,
    Migration,
    Transfer, //
};
use crate::sys::virtio::{
    request::Carrier,
    virtqueue::{
        DmaDirection,
        Queue, //
    }, //
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
    /// The addresses are for the request of `carrier` and no other one.
    ///
    /// # Errors
    ///
    /// `ENODEV`: the queue is closed. Nothing lost its destination.
    pub(crate) fn map(
        &mut self,
        queue: &'a Queue,
        carrier: Carrier,
        direction: DmaDirection,
    ) -> Result<usize> {
        self.inner.unmap();
        self.inner.mapped = Some(Mapped {
            queue,
            carrier,
            direction,
        });
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
        let mapped = self.inner.mapped.as_ref()?;
        let (slot, offset) = match mapped.direction {
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
        self.leak_what_device_has();
        let Some(mapped) = &self.mapped else {
            return;
        };
        if mapped.direction != DmaDirection::FromDevice {
            return;
        }
        let slot = self.lease.buffers.dma.get_mut(index);
        if let Some((address, bytes)) = slot.and_then(Option::take) {
            // SAFETY: `map` made the address with this queue, length and direction. The device does
            // not have the request that carries it, as was just checked.
            unsafe {
                mapped
                    .queue
                    .mapper()
                    .unmap(address, bytes, mapped.direction)
            };
        }
    }

    /// If the device still has the request that carries the addresses, nothing has waited for it, and
    /// nothing here can: gives the destinations up for good, mapped as they are. The device may write
    /// them at any time, so they must be neither freed nor used. The sources go back to where they
    /// were; a device that reads them later reads what it may not see, but corrupts nothing.
    fn leak_what_device_has(&mut self) {
        let is_with_device = |mapped: &Mapped<'_>| mapped.carrier.is_with_device();
        if !self.mapped.as_ref().is_some_and(is_with_device) {
            return;
        }
        self.mapped = None;
        pr_err!("a migration ends before its copy; its destinations are lost\n");
        self.lease
            .buffers
            .dma
            .iter_mut()
            .for_each(|slot| *slot = None);
        self.lease
            .buffers
            .dst
            .iter_mut()
            .for_each(|entry| *entry = 0);
    }

    /// Undoes `map`.
    pub(super) fn unmap(&mut self) {
        self.leak_what_device_has();
        let Some(Mapped {
            queue, direction, ..
        }) = self.mapped.take()
        else {
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
                // SAFETY: `map` made the address with this queue, length and direction. The device
                // does not have the request that carries it, as was checked above.
                unsafe { mapper.unmap(address, bytes, direction) };
                index += bytes / PAGE_SIZE;
            }
        }
    }
}
