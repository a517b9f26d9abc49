// SPDX-License-Identifier: GPL-2.0-only

//! System memory that the device accesses at any time, not only during a request.
//!
//! That is possible where a DMA mapping holds nothing: no bounce buffer, no address of an IOMMU. A
//! mapping is a pure calculation then, which is never undone.

use super::Queue;
use crate::sys::bindings;
use core::marker::PhantomData;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        AtomicFlag, //
    }, //
};

impl Queue {
    /// Whether the queue's device can access system memory at any time. That does not change while the queues are closed.
    pub(crate) fn can_share(&self) -> bool {
        let ring = self.ring.lock();
        let Some(device) = ring.dma_device() else {
            return false;
        };
        // SAFETY: The ring keeps the device.
        unsafe { bindings::vhmm_dma_can_share(device.as_ptr()) }
    }

    /// Where the device finds the page with a number, if [`Queue::can_share`]. It does not matter whether
    /// the page is in use: only an address is calculated.
    ///
    /// # Errors
    ///
    /// `ENOMEM` the device does not reach the page, `ENODEV` queues closed.
    pub(crate) fn shared_address(&self, pfn: usize) -> Result<u64> {
        let ring = self.ring.lock();
        if !ring.open {
            return Err(ENODEV);
        }
        let device = ring.dma_device().ok_or(ENODEV)?.as_ptr();
        // SAFETY: The ring keeps the device, which is bound to a driver that set its DMA mask. A mapping
        // that could hold something is refused by its attribute.
        unsafe {
            let address = bindings::vhmm_dma_share(device, pfn, PAGE_SIZE);
            if bindings::vhmm_dma_mapping_failed(device, address) {
                return Err(ENOMEM);
            }
            Ok(address)
        }
    }
}

/// A buffer of the driver that the device accesses at any time, from [`SharedBuffer::expose`] to
/// [`SharedBuffer::withdraw`]. A `P` proves that it does not any more. A buffer that is dropped before that is never freed:
/// the device may still write to it.
///
/// # Invariants
///
/// `words` has `pages` pages and never changes its place, and no reference to its elements exists. The device knows where
/// they are only while `is_exposed`.
pub(crate) struct SharedBuffer<P> {
    words: KVec<u64>,
    pages: usize,
    is_exposed: AtomicFlag,
    _proof: PhantomData<fn(P)>,
}

// SAFETY: The words are plain memory, which is only accessed by volatile reads and writes.
unsafe impl<P> Sync for SharedBuffer<P> {}

const WORD: usize = size_of::<u64>();

impl<P> SharedBuffer<P> {
    /// A buffer of zeros. `pages` is a power of two.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` not a power of two.
    pub(crate) fn new(pages: usize) -> Result<Self> {
        if !pages.is_power_of_two() {
            return Err(EINVAL);
        }
        let bytes = pages.checked_mul(PAGE_SIZE).ok_or(EINVAL)?;
        let words = KVec::from_elem(0u64, bytes / WORD, GFP_KERNEL)?;
        if words.as_ptr().addr() % PAGE_SIZE != 0 {
            // The kernel aligns what has a power of two of bytes.
            return Err(ENOMEM);
        }
        // INVARIANT: The vector is not touched any more.
        Ok(Self {
            words,
            pages,
            is_exposed: AtomicFlag::new(false),
            _proof: PhantomData,
        })
    }

    /// Its pages.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Returns the number of its first page, for the device to be told; the others follow.
    pub(crate) fn expose(&self) -> usize {
        // INVARIANT: Nothing else returns the number.
        self.is_exposed.store(true, Relaxed);
        // SAFETY: The buffer comes from kmalloc, hence lies in the linear map.
        unsafe { bindings::vhmm_buffer_to_pfn(self.words.as_ptr().cast()) }
    }

    /// The device does not access the buffer any more, which `_proof`, made for this buffer, says. The caller has it
    /// exposed by no other task meanwhile.
    pub(crate) fn withdraw(&self, _proof: &P) {
        self.is_exposed.store(false, Relaxed);
    }

    /// The memory, if the device may access it.
    fn take_exposed(&mut self) -> Option<KVec<u64>> {
        (self.is_exposed.load(Relaxed)).then(|| core::mem::take(&mut self.words))
    }

    /// Copies from the buffer, from byte `offset` on.
    ///
    /// # Errors
    ///
    /// `EINVAL`: it ends before, or offset or length are not multiples of 8.
    pub(crate) fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        let first = self.word(offset, to.len())?;
        for (index, bytes) in to.chunks_exact_mut(WORD).enumerate() {
            // SAFETY: `word` checked the range. The device may write meanwhile, hence the volatile read.
            let word = unsafe { self.words.as_ptr().add(first + index).read_volatile() };
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Ok(())
    }

    /// Copies to the buffer, from byte `offset` on.
    ///
    /// # Errors
    ///
    /// As [`SharedBuffer::read`].
    pub(crate) fn write(&self, offset: usize, from: &[u8]) -> Result {
        let first = self.word(offset, from.len())?;
        for (index, bytes) in from.chunks_exact(WORD).enumerate() {
            let mut word = [0; WORD];
            word.copy_from_slice(bytes);
            let place = self.words.as_ptr().cast_mut();
            // SAFETY: `word` checked the range; by the type invariant there is no reference to it.
            unsafe {
                place
                    .add(first + index)
                    .write_volatile(u64::from_ne_bytes(word))
            };
        }
        Ok(())
    }

    /// The first word of a range of bytes within the buffer.
    fn word(&self, offset: usize, len: usize) -> Result<usize> {
        let end = offset.checked_add(len).ok_or(EINVAL)?;
        if end > self.words.len() * WORD || offset % WORD != 0 || len % WORD != 0 {
            return Err(EINVAL);
        }
        Ok(offset / WORD)
    }
}

impl<P> Drop for SharedBuffer<P> {
    fn drop(&mut self) {
        if let Some(words) = self.take_exposed() {
            pr_err!(
                "{} pages stay allocated, since a device that does not answer may write to them\n",
                self.pages
            );
            core::mem::forget(words);
        }
    }
}

#[kunit_tests(virtio_hmm_shared)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_what_is_written() -> Result {
        let buffer = SharedBuffer::<()>::new(2)?;
        let mut bytes = [1; 16];
        buffer.read(0, &mut bytes)?;
        assert_eq!(bytes, [0; 16]);
        buffer.write(2 * PAGE_SIZE - 16, &[7; 16])?;
        buffer.read(2 * PAGE_SIZE - 16, &mut bytes)?;
        assert_eq!(bytes, [7; 16]);
        assert_eq!(buffer.pages(), 2);
        Ok(())
    }

    #[test]
    fn nothing_beyond_the_buffer_is_touched() -> Result {
        let buffer = SharedBuffer::<()>::new(1)?;
        let mut bytes = [0; 16];
        assert!(buffer.read(PAGE_SIZE - 8, &mut bytes) == Err(EINVAL));
        assert!(buffer.write(usize::MAX - 7, &bytes) == Err(EINVAL));
        assert!(buffer.write(4, &bytes) == Err(EINVAL));
        assert!(buffer.write(0, &bytes[..9]) == Err(EINVAL));
        assert!(SharedBuffer::<()>::new(3).err() == Some(EINVAL));
        assert!(SharedBuffer::<()>::new(0).err() == Some(EINVAL));
        Ok(())
    }

    #[test]
    fn what_the_device_may_write_is_not_freed() -> Result {
        struct Proof;
        let mut buffer = SharedBuffer::<Proof>::new(1)?;
        assert!(buffer.take_exposed().is_none());
        let pfn = buffer.expose();
        buffer.withdraw(&Proof);
        assert!(buffer.take_exposed().is_none());
        assert_eq!(buffer.expose(), pfn);
        // Drop would leak it.
        let words = buffer.take_exposed();
        assert!(words.is_some_and(|words| words.len() == PAGE_SIZE / WORD));
        buffer.withdraw(&Proof);
        Ok(())
    }
}
