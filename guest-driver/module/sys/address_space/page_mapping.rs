// SPDX-License-Identifier: GPL-2.0-only

//! How an address space maps its pages, at the moment of asking: permission and size beside the place.
//!
//! C header: [`include/linux/hmm.h`](srctree/include/linux/hmm.h)

use crate::sys::{
    address_space::{
        hmm_entries,
        locked::MmapLocked,
        snapshot::Snapshot, //
    },
    bindings,
    device_memory::owner::Owner, //
};
use core::ops::Range;
use kernel::prelude::*;

const WRITE: usize = bindings::hmm_pfn_flags_HMM_PFN_WRITE;

/// How a page is mapped, with the eyes of a memory's owner.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageMapping {
    /// No mapping has the address, or one without read access, or a special page.
    Error,
    /// No page, or one that the owner may not see: swapped out, being migrated, on another device.
    None,
    /// A page that the process can read.
    Page {
        kind: PageKind,
        /// Whether the process can write it without a fault.
        is_writable: bool,
        /// log2 of the pages that one entry of the page tables maps.
        order: usize,
    },
}

/// What a mapped page is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    /// A page in system memory.
    System,
    /// The page of zeros.
    Zero,
    /// On the device that the owner is.
    Device,
}

impl Snapshot {
    /// Looks at every page of `range` with the eyes of `owner`, and calls `each` with how it is mapped,
    /// in order. `entries` is scratch space of at least as many elements as pages.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::look`].
    pub(crate) fn look_at_mappings(
        &self,
        guard: &dyn MmapLocked,
        range: Range<usize>,
        owner: Owner,
        entries: &mut [usize],
        each: impl FnMut(PageMapping),
    ) -> Result {
        let entries = self.entries(guard, range, owner.as_raw(), entries)?;
        entries.iter().copied().map(mapping).for_each(each);
        Ok(())
    }
}

/// What an entry of `hmm_range_fault()` says.
fn mapping(entry: usize) -> PageMapping {
    if entry & hmm_entries::ERROR != 0 {
        return PageMapping::Error;
    }
    if entry & hmm_entries::VALID == 0 {
        return PageMapping::None;
    }
    // SAFETY: A valid entry holds a pfn with a struct page, which stays also when the page is freed.
    let kind = unsafe {
        let page = bindings::vhmm_pfn_to_page(entry & hmm_entries::PFN_MASK);
        // `hmm_range_fault()` tells of device-private pages only if they are the asker's.
        if bindings::vhmm_page_is_of_a_device(page) {
            PageKind::Device
        } else if bindings::vhmm_page_is_zero(page) {
            PageKind::Zero
        } else {
            PageKind::System
        }
    };
    PageMapping::Page {
        kind,
        is_writable: entry & WRITE != 0,
        order: hmm_entries::order(entry),
    }
}

#[kunit_tests(virtio_hmm_page_mapping)]
mod tests {
    use super::*;
    use crate::sys::{
        address_space::mmap_lock::MmapReadGuard,
        services::kunit::TestMemory, //
    };
    use kernel::page::PAGE_SIZE;

    #[test]
    fn a_touched_page_is_one_that_can_be_written() -> Result {
        let memory = TestMemory::new(1)?;
        let (mm, range) = (memory.mm()?, memory.range());
        let snapshot = KBox::pin_init(Snapshot::new(&mm), GFP_KERNEL)?;
        let look = || {
            let (mut entries, mut seen) = ([0; 1], PageMapping::Error);
            let guard = MmapReadGuard::lock(&mm, || false)?;
            let owner = Owner::nobody();
            snapshot.look_at_mappings(&guard, range.clone(), owner, &mut entries, |mapping| {
                seen = mapping;
            })?;
            Ok::<_, Error>(seen)
        };
        assert!(look()? == PageMapping::None);
        memory.fill()?;
        assert!(matches!(
            look()?,
            PageMapping::Page {
                kind: PageKind::System,
                is_writable: true,
                ..
            }
        ));
        memory.unmap()?;
        assert!(look()? == PageMapping::Error);
        Ok(())
    }

    #[test]
    fn memory_without_access_is_an_error() -> Result {
        let memory = TestMemory::without_access(1)?;
        let (mm, range) = (memory.mm()?, memory.range());
        let snapshot = KBox::pin_init(Snapshot::new(&mm), GFP_KERNEL)?;
        let guard = MmapReadGuard::lock(&mm, || false)?;
        let mut errors = 0;
        let (mut entries, owner) = ([0; 1], Owner::nobody());
        assert_eq!(range.len(), PAGE_SIZE);
        snapshot.look_at_mappings(&guard, range, owner, &mut entries, |mapping| {
            errors += usize::from(mapping == PageMapping::Error);
        })?;
        assert_eq!(errors, 1);
        Ok(())
    }

    #[test]
    fn an_entry_without_a_page_is_none_or_an_error() {
        assert!(mapping(0) == PageMapping::None);
        assert!(mapping(WRITE) == PageMapping::None);
        assert!(mapping(hmm_entries::ERROR) == PageMapping::Error);
        assert!(mapping(hmm_entries::ERROR | hmm_entries::VALID) == PageMapping::Error);
    }
}
