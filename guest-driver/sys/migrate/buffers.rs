// SPDX-License-Identifier: GPL-2.0-only

//! What migrations write down for each page, allocated once and used again and again.

use super::super::{
    anon_vma::AnonVma,
    virtqueue::DmaAddress, //
};
use kernel::{
    new_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        CondVar,
        SpinLock, //
    }, //
};

/// The arrays of one migration.
#[derive(Default)]
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
    idle: SpinLock<KVec<Buffers>>,
    #[pin]
    returned: CondVar,
}

impl BufferPool {
    /// `count` buffers for up to `pages` pages each; `by_pfn` if they are also for
    /// [`Migration::by_pfn`](super::Migration::by_pfn).
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(count: usize, pages: usize, by_pfn: bool) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let mut idle = KVec::with_capacity(count, GFP_KERNEL)?;
            for _ in 0..count {
                idle.push(Buffers::new(pages, by_pfn)?, GFP_KERNEL)?;
            }
            Ok(try_pin_init!(Self {
                idle <- new_spinlock!(idle, "BufferPool::idle"),
                returned <- new_condvar!("BufferPool::returned"),
            }))
        })
    }

    /// Takes buffers; sleeps while there are none. Who has some must not wait for more of them
    /// this way, or for anything that is not bounded.
    pub(crate) fn lease(&self) -> Lease<'_> {
        let mut idle = self.idle.lock();
        loop {
            if let Some(buffers) = idle.pop() {
                return Lease {
                    pool: self,
                    buffers,
                };
            }
            self.returned.wait(&mut idle);
        }
    }

    /// Takes buffers if there are any.
    pub(crate) fn try_lease(&self) -> Option<Lease<'_>> {
        let buffers = self.idle.lock().pop()?;
        Some(Lease {
            pool: self,
            buffers,
        })
    }
}

/// Buffers that go back to their pool when dropped.
pub(crate) struct Lease<'a> {
    pool: &'a BufferPool,
    pub(super) buffers: Buffers,
}

impl Lease<'_> {
    /// Pages that there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.buffers.src.len()
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let buffers = core::mem::take(&mut self.buffers);
        // There is room for all buffers of the pool.
        let returned = self.pool.idle.lock().push_within_capacity(buffers);
        debug_assert!(returned.is_ok());
        self.pool.returned.notify_one();
    }
}
