// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A shared mapping of a part of a file, aligned so that huge pages can back it.

use std::{fs::File, io, ptr::NonNull};

use rustix::mm::{
    Advice, MapFlags, MsyncFlags, ProtFlags, madvise, mmap, mmap_anonymous, msync, munmap,
};

use super::MemoryError;

/// What transparent huge pages want. Reserved ones may want more.
const LEAST_ALIGNMENT: u64 = 2 << 20;

/// A mapping that stays where it is until it is dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    /// Start of the reservation, which is one alignment larger than the mapping.
    reserved: NonNull<u8>,
    reserved_bytes: usize,
    start: NonNull<u8>,
    bytes: usize,
    /// Where in the file the mapping begins.
    #[cfg(test)]
    offset: u64,
}

// SAFETY: the mapping is plain shared memory; callers of `at` answer for each access.
unsafe impl Send for Mapping {}
// SAFETY: as above: no method of `Mapping` touches the mapped bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` bytes of `file`, whose pages have `page` bytes (a power of two), from `offset`, readable and writable.
    pub(super) fn new(
        file: &File,
        page: u64,
        offset: u64,
        bytes: u64,
    ) -> Result<Self, MemoryError> {
        let error = |source: io::Error| MemoryError::System {
            what: "map",
            bytes,
            source,
        };
        let too_large = || error(io::Error::from(io::ErrorKind::OutOfMemory));
        let len = usize::try_from(bytes).map_err(|_| too_large())?;
        let alignment = usize::try_from(page.max(LEAST_ALIGNMENT)).map_err(|_| too_large())?;
        let reserved_bytes = len.checked_add(alignment).ok_or_else(too_large)?;
        // SAFETY: without MAP_FIXED the kernel picks a range that nothing uses.
        let reserved = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                reserved_bytes,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(|errno| error(errno.into()))?;
        let reserved = NonNull::new(reserved.cast::<u8>())
            .ok_or_else(|| error(io::Error::from(io::ErrorKind::InvalidData)))?;
        let padding = reserved.as_ptr().align_offset(alignment);
        // SAFETY: `padding` is less than `alignment`, by which the reservation exceeds `len`.
        let wanted = unsafe { reserved.as_ptr().add(padding) };
        // SAFETY: [wanted, wanted + len) is within the reservation made above, to which there is no other pointer.
        let start = unsafe {
            mmap(
                wanted.cast(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                offset,
            )
        };
        let start = match start {
            Ok(start) => start,
            Err(errno) => {
                // SAFETY: the reservation is ours and nothing points into it.
                let _ = unsafe { munmap(reserved.as_ptr().cast(), reserved_bytes) };
                return Err(error(errno.into()));
            }
        };
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| error(io::Error::from(io::ErrorKind::InvalidData)))?;
        Ok(Self {
            reserved,
            reserved_bytes,
            start,
            bytes: len,
            #[cfg(test)]
            offset,
        })
    }

    /// Asks for transparent huge pages. Whether the file system gives them is its own business, and is reported.
    pub(super) fn prefer_huge_pages(&self) {
        let (start, len) = self.range();
        // SAFETY: the range is the whole of this mapping; the advice changes no byte.
        if let Err(error) = unsafe { madvise(start.cast(), len, Advice::LinuxHugepage) } {
            tracing::debug!(%error, "the kernel has no transparent huge pages");
        }
    }

    /// Size, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// The address of `offset`, if `len` bytes from there are mapped.
    pub(super) fn at(&self, offset: u64, len: u64) -> Option<*mut u8> {
        let bytes = self.bytes as u64;
        if offset > bytes || len > bytes - offset {
            return None;
        }
        // SAFETY: `offset` is at most the size of the mapping, checked above, so the result stays in or at its end.
        Some(unsafe { self.start.as_ptr().add(offset as usize) })
    }

    /// Writes what has changed to the file's storage, and returns when it is there.
    pub(super) fn sync(&self) -> io::Result<()> {
        let (start, len) = self.range();
        // SAFETY: the range is the whole of a live mapping, and no byte changes.
        unsafe { msync(start.cast(), len, MsyncFlags::SYNC) }?;
        #[cfg(test)]
        super::power_cut::synced(self.offset, self.bytes as u64);
        Ok(())
    }

    /// Start and size for calls that take a range, such as `madvise` and `msync`.
    pub(super) fn range(&self) -> (*mut u8, usize) {
        (self.start.as_ptr(), self.bytes)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was reserved by `new` and belongs to this object alone.
        let _ = unsafe { munmap(self.reserved.as_ptr().cast(), self.reserved_bytes) };
    }
}
