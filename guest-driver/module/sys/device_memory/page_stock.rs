// SPDX-License-Identifier: GPL-2.0-only

//! System pages for many destinations, allocated many at a time.
//!
//! C header: [`include/linux/gfp.h`](srctree/include/linux/gfp.h)

use crate::sys::{
    address_space::mm::Vma,
    bindings,
    device_memory::{
        page::Destination,
        placement::Placement, //
    }, //
};
use core::ptr::{
    null_mut,
    NonNull, //
};
use kernel::prelude::*;

/// Pages that are allocated at once, with preemption off.
const AT_ONCE: usize = 32;

/// System pages for the destinations of a migration, on the nodes where the owner of the memory may
/// have them. What is not used is freed.
///
/// # Invariants
///
/// The first `len` pages are single pages to each of which this object owns the only reference; the
/// others are null.
///
/// # Examples
///
/// ```ignore
/// let mut stock = PageStock::for_mapping(vma, migration.collected_pages().single);
/// migration.for_each_source(|visit| {
///     if let Source::Page(_) = visit.source() {
///         // A page without a destination stays where it is.
///         if let Ok(page) = stock.single(start + visit.index() * PAGE_SIZE) {
///             visit.give(page);
///         }
///     }
/// });
/// ```
pub(crate) struct PageStock<'a> {
    pages: [*mut bindings::page; AT_ONCE],
    len: usize,
    /// Pages that will be asked for.
    wanted: usize,
    /// The mapping whose pages they replace, if one is known.
    vma: Option<Vma<'a>>,
    /// Where pages have to be, if not where the kernel would allocate them for the calling task.
    placement: Option<Placement>,
    /// Whether every page is as good as another, so that many can be allocated at once.
    is_any: bool,
}

impl<'a> PageStock<'a> {
    /// An empty stock, from which about `wanted` single pages of `vma` will be taken.
    pub(crate) fn for_mapping(vma: Vma<'a>, wanted: usize) -> Self {
        let placement = Placement::of_foreign(&vma);
        let is_any = placement.is_none() && !vma.has_memory_policy() && !task_has_memory_policy();
        Self {
            vma: Some(vma),
            placement,
            is_any,
            ..Self::for_owner(None, wanted)
        }
    }

    /// The same without a mapping that is known: pages where `placement` says, or anywhere.
    pub(crate) fn for_owner(placement: Option<Placement>, wanted: usize) -> Self {
        Self {
            pages: [null_mut(); AT_ONCE],
            len: 0,
            wanted,
            vma: None,
            is_any: placement.is_none(),
            placement,
        }
    }

    /// A single page for `address`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn single(&mut self, address: usize) -> Result<Destination> {
        if self.is_any {
            if let Some(page) = self.take() {
                return Ok(page);
            }
        }
        match (&mut self.placement, &self.vma) {
            (Some(placement), _) => Destination::placed(placement, false),
            (None, Some(vma)) => Destination::system_for(vma, address),
            (None, None) => Destination::system(),
        }
    }

    /// A huge page for the huge page at `address`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; likely, when memory is fragmented.
    pub(crate) fn huge(&mut self, address: usize) -> Result<Destination> {
        match (&mut self.placement, &self.vma) {
            (Some(placement), _) => Destination::placed(placement, true),
            (None, Some(vma)) => Destination::huge_system_for(vma, address),
            (None, None) => Err(ENOMEM),
        }
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

/// Whether the calling task has a memory policy.
fn task_has_memory_policy() -> bool {
    // SAFETY: Has no requirements.
    unsafe { bindings::vhmm_task_has_memory_policy() }
}

impl Drop for PageStock<'_> {
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
        let mut stock = PageStock::for_owner(None, AT_ONCE + 3);
        let mut taken = KVec::new();
        for _ in 0..AT_ONCE + 3 {
            taken.push(stock.single(0)?.into_raw(), GFP_KERNEL)?;
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
            let mut stock = PageStock::for_owner(None, wanted);
            for _ in 0..4 {
                assert!(!stock.single(0)?.is_huge());
            }
        }
        Ok(())
    }

    #[test]
    fn no_more_is_allocated_than_will_be_taken() -> Result {
        let mut stock = PageStock::for_owner(None, 3);
        let first = stock.single(0)?;
        assert!(stock.len <= 2);
        drop(first);
        assert!(stock.pages[stock.len..].iter().all(|page| page.is_null()));
        Ok(())
    }
}
