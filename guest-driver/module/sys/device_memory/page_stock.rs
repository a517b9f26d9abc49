// SPDX-License-Identifier: GPL-2.0-only

//! System pages for many destinations, allocated many at a time.
//!
//! C header: [`include/linux/gfp.h`](srctree/include/linux/gfp.h)

use crate::sys::{
    address_space::mm::Vma,
    bindings,
    device_memory::page::Destination, //
};
use core::ptr::{
    null_mut,
    NonNull, //
};
use kernel::prelude::*;

/// Pages that are allocated at once, with preemption off.
const AT_ONCE: usize = 32;

/// Free system pages for the destinations of a migration. What is not used goes back.
///
/// # Invariants
///
/// The first `len` pages are single pages to each of which this object owns the only reference; the
/// others are null.
///
/// # Examples
///
/// ```ignore
/// let mut stock = PageStock::new(migration.collected_pages().single);
/// migration.for_each_source(|visit| {
///     if let Source::Page(_) = visit.source() {
///         // A page without a destination stays where it is.
///         if let Ok(page) = stock.take_any() {
///             visit.give(page);
///         }
///     }
/// });
/// ```
pub(crate) struct PageStock {
    pages: [*mut bindings::page; AT_ONCE],
    len: usize,
    /// Pages that will be asked for.
    wanted: usize,
}

impl PageStock {
    /// An empty stock, from which about `wanted` pages will be taken.
    pub(crate) fn new(wanted: usize) -> Self {
        Self {
            pages: [null_mut(); AT_ONCE],
            len: 0,
            wanted,
        }
    }

    /// A page for `address` in `vma`, by the memory policy of the VMA; see
    /// [`Destination::system_for`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn take_for(&mut self, vma: &Vma<'_>, address: usize) -> Result<Destination> {
        if vma.has_memory_policy() {
            return Destination::system_for(vma, address);
        }
        self.take()
            .map_or_else(|| Destination::system_for(vma, address), Ok)
    }

    /// A page for nobody in particular.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn take_any(&mut self) -> Result<Destination> {
        self.take().map_or_else(Destination::system, Ok)
    }

    fn take(&mut self) -> Option<Destination> {
        if self.len == 0 {
            // One page is no bulk.
            let count = self.wanted.min(AT_ONCE);
            if count > 1 {
                // SAFETY: The array has room for `count` pages, and all of them are null.
                let got =
                    unsafe { bindings::vhmm_pages_alloc_bulk(count, self.pages.as_mut_ptr()) };
                // INVARIANT: So many pages were written, each with a reference of its own.
                self.len = got.min(count);
            }
        }
        self.wanted = self.wanted.saturating_sub(1);
        // INVARIANT: The last page is taken out.
        self.len = self.len.checked_sub(1)?;
        let page = core::mem::replace(self.pages.get_mut(self.len)?, null_mut());
        // SAFETY: By the type invariant; the reference goes to the destination.
        Some(unsafe { Destination::from_new(NonNull::new(page)?) })
    }
}

impl Drop for PageStock {
    fn drop(&mut self) {
        for &page in self.pages.iter().take(self.len) {
            // SAFETY: By the type invariant.
            unsafe { bindings::vhmm_page_put(page) };
        }
    }
}

#[kunit_tests(virtio_hmm_page_stock)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_all_different() -> Result {
        let mut stock = PageStock::new(AT_ONCE + 3);
        let mut taken = KVec::new();
        for _ in 0..AT_ONCE + 3 {
            taken.push(stock.take_any()?.into_raw(), GFP_KERNEL)?;
        }
        let is_new = |(index, page): (usize, &NonNull<_>)| !taken[..index].contains(page);
        assert!(taken.iter().enumerate().all(is_new));
        for page in taken {
            // SAFETY: The page is a locked single one, and its reference came from the stock.
            drop(unsafe { Destination::from_raw(page, false) });
        }
        Ok(())
    }

    #[test]
    fn more_may_be_taken_than_was_thought() -> Result {
        for wanted in [0, 1, 2] {
            let mut stock = PageStock::new(wanted);
            for _ in 0..4 {
                assert!(!stock.take_any()?.is_huge());
            }
        }
        Ok(())
    }

    #[test]
    fn no_more_is_allocated_than_will_be_taken() -> Result {
        let mut stock = PageStock::new(3);
        let first = stock.take_any()?;
        assert!(stock.len <= 2);
        drop(first);
        assert!(stock.pages[stock.len..].iter().all(|page| page.is_null()));
        Ok(())
    }
}
