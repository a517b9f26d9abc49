// SPDX-License-Identifier: GPL-2.0-only

//! What migrations write down for each page, allocated once and used again and again.

use crate::sys::{
    address_space::anon_vma::AnonVma,
    services::reserve::Reserve,
    virtio::virtqueue::DmaAddress, //
};
use core::mem::ManuallyDrop;
use kernel::{
    prelude::*,
    sync::static_lock_class, //
};

/// The arrays of one migration.
pub(super) struct Buffers {
    pub(super) src: KVVec<usize>,
    pub(super) dst: KVVec<usize>,
    /// Address and length in bytes of what is mapped for the device.
    pub(super) dma: KVVec<Option<(DmaAddress, usize)>>,
    pub(super) anon_vmas: KVVec<Option<AnonVma>>,
}

impl Buffers {
    fn new(pages: usize, by_pfn: bool) -> Result<Self> {
        let mut dma = KVVec::with_capacity(pages, GFP_KERNEL)?;
        let mut anon_vmas = KVVec::with_capacity(if by_pfn { pages } else { 0 }, GFP_KERNEL)?;
        for _ in 0..pages {
            dma.push(None, GFP_KERNEL)?;
            if by_pfn {
                anon_vmas.push(None, GFP_KERNEL)?;
            }
        }
        Ok(Self {
            src: KVVec::from_elem(0, pages, GFP_KERNEL)?,
            dst: KVVec::from_elem(0, pages, GFP_KERNEL)?,
            dma,
            anon_vmas,
        })
    }
}

/// A fixed number of buffers, so that a migration allocates nothing and their number bounds how
/// much is on its way at once.
#[pin_data]
pub(crate) struct BufferPool {
    #[pin]
    idle: Reserve<Buffers>,
}

impl BufferPool {
    /// `count` buffers for up to `pages` pages each; `by_pfn` if they are also for
    /// [`Migration::by_pfn`](super::Migration::by_pfn).
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(count: usize, pages: usize, by_pfn: bool) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            idle <- Reserve::new(
                count,
                move || Buffers::new(pages, by_pfn),
                (c"BufferPool::idle", static_lock_class!()),
                (c"BufferPool::returned", static_lock_class!()),
            ),
        }? Error)
    }

    /// Takes buffers; sleeps while there are none. A caller that has some must not wait for
    /// more in this way, or for anything that is not bounded.
    pub(crate) fn lease(&self) -> Lease<'_> {
        Lease {
            pool: self,
            buffers: ManuallyDrop::new(self.idle.take()),
        }
    }

    /// Takes buffers if there are any.
    pub(crate) fn try_lease(&self) -> Option<Lease<'_>> {
        let buffers = self.idle.try_take()?;
        Some(Lease {
            pool: self,
            buffers: ManuallyDrop::new(buffers),
        })
    }
}

/// Buffers that go back to their pool when dropped.
pub(crate) struct Lease<'a> {
    pool: &'a BufferPool,
    pub(super) buffers: ManuallyDrop<Buffers>,
}

impl Lease<'_> {
    /// Pages that there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.buffers.src.len()
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // SAFETY: Nothing uses the lease any more.
        let buffers = unsafe { ManuallyDrop::take(&mut self.buffers) };
        self.pool.idle.give(buffers);
    }
}
