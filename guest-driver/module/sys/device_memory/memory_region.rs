// SPDX-License-Identifier: GPL-2.0-only

//! Physical addresses that no memory answers to, as page frame numbers for device memory.
//!
//! C header: [`include/linux/ioport.h`](srctree/include/linux/ioport.h)

use crate::sys::bindings;
use kernel::{
    error::from_err_ptr,
    prelude::*, //
};

/// A free region of the physical address space, reserved under the driver's name.
///
/// # Invariants
///
/// `resource` is a child of `iomem_resource` that this object requested.
///
/// # Examples
///
/// ```ignore
/// let region = FreeRegion::new(64 << 20, c"sample")?;
/// let (first, last) = region.bounds();
/// ```
pub(crate) struct FreeRegion {
    resource: *mut bindings::resource,
}

// SAFETY: The resource tree has its own lock; the pointer is only read.
unsafe impl Send for FreeRegion {}
// SAFETY: As above.
unsafe impl Sync for FreeRegion {}

impl FreeRegion {
    /// Reserves `bytes` bytes. The kernel rounds the size up to a memory section (128 MiB).
    ///
    /// # Errors
    ///
    /// `ERANGE` or `ENOMEM`.
    pub(crate) fn new(bytes: usize, name: &'static CStr) -> Result<Self> {
        // SAFETY: `iomem_resource` is a valid resource, `name` lives for ever.
        let resource = from_err_ptr(unsafe {
            bindings::request_free_mem_region(
                &raw mut bindings::iomem_resource,
                bytes,
                name.as_char_ptr(),
            )
        })?;
        // INVARIANT: The call succeeded.
        Ok(Self { resource })
    }

    /// First and last address.
    pub(in crate::sys) fn bounds(&self) -> (u64, u64) {
        // SAFETY: By the type invariant; start and end do not change.
        unsafe { ((*self.resource).start, (*self.resource).end) }
    }
}

impl Drop for FreeRegion {
    fn drop(&mut self) {
        let (start, end) = self.bounds();
        // SAFETY: By the type invariant the region was requested, and is released once.
        unsafe {
            bindings::__release_region(&raw mut bindings::iomem_resource, start, end - start + 1)
        };
    }
}

#[kunit_tests(virtio_hmm_memory_region)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_large_enough_and_apart() -> Result {
        let bytes = 1 << 20;
        let (one, other) = (
            FreeRegion::new(bytes, c"virtio_hmm_kunit")?,
            FreeRegion::new(bytes, c"virtio_hmm_kunit")?,
        );
        for region in [&one, &other] {
            let (first, last) = region.bounds();
            assert!(last - first + 1 >= bytes as u64);
        }
        let ((first, last), (other_first, other_last)) = (one.bounds(), other.bounds());
        assert!(last < other_first || other_last < first);
        Ok(())
    }

    #[test]
    fn what_is_given_back_is_free() -> Result {
        let bounds = FreeRegion::new(1, c"virtio_hmm_kunit")?.bounds();
        assert!(FreeRegion::new(1, c"virtio_hmm_kunit")?.bounds() == bounds);
        Ok(())
    }

    #[test]
    fn there_is_no_room_for_everything() {
        assert!(FreeRegion::new(usize::MAX / 2, c"virtio_hmm_kunit").is_err());
    }
}
