// SPDX-License-Identifier: GPL-2.0-only

//! Where the owners of device pages may have them in system memory, by page frame number.

use crate::{
    device::DeviceMemory,
    sys::{
        address_space::{
            anon_vma::{
                AnonVma,
                PageMapping, //
            },
            mm::Vma,
            mmap_lock::MmapReadGuard, //
        },
        device_memory::{
            page::PageRef,
            placement::Placement, //
        }, //
    }, //
};
use core::ops::Range;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// Where a page may go.
#[allow(
    clippy::large_enum_variant,
    reason = "there are few, and a box would have to be allocated"
)]
pub(super) enum Site {
    /// To any node.
    Anywhere,
    /// Where the owner may have it.
    At(Placement),
    /// Its mapping is being changed, and with it what may be said of the page: it stays.
    Unknown,
}

/// The sites of a block's pages, as runs of pages of the same mapping.
pub(super) struct Placements {
    /// Index of the first page of each run, and its site.
    runs: KVec<(usize, Site)>,
}

impl Placements {
    /// Asks the reverse mapping of each page of `pages`, before it is collected. Without memory for
    /// the answer any node will do. On a system with one node this does nothing.
    pub(super) fn of(memory: &DeviceMemory, pages: Range<usize>) -> Self {
        let mut runs = KVec::new();
        if !Placement::matters() {
            return Self { runs };
        }
        let mut last: Option<Mapped> = None;
        for index in pages {
            let Some(page) = memory.page_in_use(index) else {
                continue;
            };
            let Some(anon_vma) = AnonVma::of(page) else {
                continue;
            };
            if (last.as_ref()).is_some_and(|last| last.maps(page, &anon_vma)) {
                continue;
            }
            let mapping = anon_vma.mapping(page, 0);
            let (site, offsets) = site(page, mapping.as_ref());
            if runs.push((index, site), GFP_KERNEL).is_err() {
                break;
            }
            last = Some(Mapped { anon_vma, offsets });
        }
        Self { runs }
    }

    /// The site of the page at `index`, if another run than that of the last call begins at or
    /// before it. Pages are asked for in ascending order.
    pub(super) fn take(&mut self, index: usize) -> Option<Site> {
        let mut current = None;
        while self.runs.first().is_some_and(|(first, _)| *first <= index) {
            current = self.runs.remove(0).ok().map(|(_, site)| site);
        }
        current
    }
}

/// A mapping that was asked already.
struct Mapped {
    anon_vma: AnonVma,
    /// The offsets of the pages that it may map; empty if it is not known.
    offsets: Range<usize>,
}

impl Mapped {
    fn maps(&self, page: PageRef<'_>, anon_vma: &AnonVma) -> bool {
        self.anon_vma.is(anon_vma) && self.offsets.contains(&page.offset())
    }
}

/// Where `page` may go, which `mapping` maps, and the offsets of the pages for which the same holds.
fn site(page: PageRef<'_>, mapping: Option<&PageMapping>) -> (Site, Range<usize>) {
    let offset = page.offset();
    let Some((mm, range)) =
        mapping.and_then(|mapping| Some((mapping.mm.as_ref()?, &mapping.range)))
    else {
        // Its last process is about to exit.
        return (Site::Anywhere, offset..offset + 1);
    };
    // Do not block: the holder of the lock may be waiting for room.
    let Some(guard) = MmapReadGuard::try_lock(mm) else {
        return (Site::Unknown, 0..0);
    };
    let Some(vma) = Vma::find(&guard, range.start).filter(|vma| vma.start() <= range.start) else {
        return (Site::Unknown, 0..0);
    };
    let first = offset.saturating_sub((range.start - vma.start()) / PAGE_SIZE);
    let pages = (vma.end() - vma.start()) / PAGE_SIZE;
    let site = Placement::of_mapping(&vma).map_or(Site::Anywhere, Site::At);
    (site, first..first.saturating_add(pages))
}
