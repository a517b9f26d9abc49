// SPDX-License-Identifier: GPL-2.0-only

//! Memory that a queue's device may access.

use super::{
    ring::Ring,
    Queue, //
};
use crate::sys::bindings;
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::SpinLockIrqGuard, //
};

/// A DMA address that a [`Queue`] mapped.
#[derive(Clone, Copy)]
pub(crate) struct DmaAddress(u64);

impl DmaAddress {
    /// The address as the device sees it, bytes.
    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

/// Whether the device reads or writes memory that is mapped for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DmaDirection {
    /// The device reads.
    ToDevice,
    /// The device writes.
    FromDevice,
}

impl DmaDirection {
    fn as_raw(self) -> bindings::dma_data_direction {
        match self {
            Self::ToDevice => bindings::dma_data_direction::DMA_TO_DEVICE,
            Self::FromDevice => bindings::dma_data_direction::DMA_FROM_DEVICE,
        }
    }
}

impl Queue {
    /// Access to the queue's DMA mappings, for as long as the result lives. Interrupts are off
    /// meanwhile.
    pub(in crate::sys) fn mapper(&self) -> Mapper<'_> {
        Mapper {
            ring: self.ring.lock(),
        }
    }
}

/// Makes and undoes DMA mappings for a queue's device.
pub(in crate::sys) struct Mapper<'a> {
    ring: SpinLockIrqGuard<'a, Ring>,
}

impl Mapper<'_> {
    /// Maps `len` bytes from the start of `page`.
    ///
    /// # Errors
    ///
    /// `ENOMEM` no mapping could be made, `ENODEV` queues closed.
    ///
    /// # Safety
    ///
    /// `page` must be a valid system page with `len` bytes after it, and must stay so until
    /// [`Mapper::unmap`].
    pub(in crate::sys) unsafe fn map(
        &self,
        page: NonNull<bindings::page>,
        len: usize,
        direction: DmaDirection,
    ) -> Result<DmaAddress> {
        if !self.ring.open {
            return Err(ENODEV);
        }
        let device = self.ring.dma_device().ok_or(ENODEV)?.as_ptr();
        // SAFETY: The ring keeps the device. While the ring is open the device is bound to a driver
        // that set its DMA mask. The page is valid by the safety requirement.
        unsafe {
            let direction = direction.as_raw();
            let address = bindings::dma_map_page_attrs(device, page.as_ptr(), 0, len, direction, 0);
            if bindings::vhmm_dma_mapping_failed(device, address) {
                return Err(ENOMEM);
            }
            Ok(DmaAddress(address))
        }
    }

    /// Undoes [`Mapper::map`], whether or not the queue still exists: what a bounce buffer holds is
    /// copied to the page only here, and only here an address of an IOMMU is given back.
    ///
    /// # Safety
    ///
    /// `address` must come from `map` for the same queue with the same length and direction, and
    /// must not be used any more by the device.
    pub(in crate::sys) unsafe fn unmap(
        &self,
        address: DmaAddress,
        len: usize,
        direction: DmaDirection,
    ) {
        let Some(device) = self.ring.dma_device() else {
            // There is no address of a queue that never existed.
            return;
        };
        // SAFETY: By the safety requirement; the ring keeps the device that the address was made for.
        unsafe {
            bindings::dma_unmap_page_attrs(device.as_ptr(), address.0, len, direction.as_raw(), 0)
        };
    }
}
