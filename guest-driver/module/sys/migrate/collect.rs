// SPDX-License-Identifier: GPL-2.0-only

//! How a migration begins: its pages are found, isolated, locked and unmapped.

use super::{
    entry::{
        pages_of,
        COMPOUND,
        MIGRATE,
        VALID, //
    },
    Collected,
    Inner,
    Kind,
    Lease,
    Migration,
    Select,
    Source, //
};
use crate::sys::{
    address_space::{
        anon_vma::AnonVma,
        mm::Vma, //
        zap_guard::OwnZaps,
    },
    bindings,
    device_memory::pagemap::{
        Fault,
        Operations,
        PrivateMemory, //
    }, //
};
use core::{
    marker::PhantomData,
    ops::Range,
    ptr::null_mut, //
};
use kernel::{
    error::to_result,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// What a migration collected.
#[derive(Clone, Copy, Default)]
pub(crate) struct CollectedPages {
    /// Single pages.
    pub(crate) single: usize,
    /// Single pages of holes.
    pub(crate) single_holes: usize,
    /// Pages of huge pages.
    pub(crate) huge: usize,
    /// Pages of huge holes.
    pub(crate) huge_holes: usize,
}

impl<'a> Migration<'a, Collected> {
    /// Collects the pages of `range`, which must lie within `vma`, be page aligned and fit into
    /// the buffers.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the range or the mapping is not one that can be migrated.
    pub(crate) fn of_range<T: Operations>(
        vma: Vma<'a>,
        range: Range<usize>,
        select: Select<'a>,
        memory: &PrivateMemory<T>,
        lease: Lease<'a>,
    ) -> Result<Self> {
        Self::setup(vma, range, select, memory, lease, null_mut())
    }

    /// Collects device pages around a CPU fault. `range` must contain the fault's address.
    ///
    /// # Errors
    ///
    /// As [`Migration::of_range`].
    pub(crate) fn of_fault<T: Operations>(
        fault: &'a Fault<'a>,
        range: Range<usize>,
        select: Select<'a>,
        memory: &PrivateMemory<T>,
        lease: Lease<'a>,
    ) -> Result<Self> {
        let page = fault.page().as_raw().as_ptr();
        Self::setup(*fault.vma(), range, select, memory, lease, page)
    }

    fn setup<T: Operations>(
        vma: Vma<'a>,
        range: Range<usize>,
        select: Select<'a>,
        memory: &PrivateMemory<T>,
        mut lease: Lease<'a>,
        fault_page: *mut bindings::page,
    ) -> Result<Self> {
        let pages = range.end.checked_sub(range.start).ok_or(EINVAL)? >> PAGE_SHIFT;
        if pages == 0
            || pages > lease.capacity()
            || range.start % PAGE_SIZE != 0
            || range.start < vma.start()
            || range.end > vma.end()
        {
            return Err(EINVAL);
        }
        let mut args = bindings::migrate_vma {
            vma: vma.as_raw(),
            dst: lease.buffers.dst.as_mut_ptr(),
            src: lease.buffers.src.as_mut_ptr(),
            cpages: 0,
            npages: 0,
            start: range.start,
            end: range.start + (pages << PAGE_SHIFT),
            pgmap_owner: memory.owner().as_raw(),
            flags: match select {
                Select::System | Select::SystemHuge(_) => {
                    bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_SYSTEM
                }
                Select::Device | Select::DeviceHuge(_) => {
                    bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_PRIVATE
                }
            } as usize,
            fault_page,
        };
        let as_one = match select {
            Select::System | Select::Device => false,
            Select::SystemHuge(undisturbed) => {
                vma.wants_huge_pages() && vma.is_exclusive() && undisturbed.ensure(&vma, &range)
            }
            // What the mapping wants now does not matter: the page is huge already.
            Select::DeviceHuge(undisturbed) => {
                vma.is_exclusive() && undisturbed.ensure(&vma, &range)
            }
        };
        if as_one {
            args.flags |= bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_COMPOUND as usize;
        }
        let clears = OwnZaps::begin();
        // SAFETY: The mmap lock is held for `'a`; both arrays hold `pages` entries; a fault page
        // comes from a `Fault`, which proves that it is a locked device page.
        to_result(unsafe { bindings::migrate_vma_setup(&mut args) })?;
        drop(clears);
        let mut migration = Self::collected(Kind::Vma(args), lease, pages);
        if let Select::SystemHuge(undisturbed) = select {
            if undisturbed.was_passed(&range) {
                migration.leave_huge();
            }
        }
        Ok(migration)
    }

    /// Collects single device pages by their index, wherever they are mapped. Pages that are huge,
    /// free, busy, not mapped anywhere or copied already are reported as skipped. Meanwhile none of
    /// the pages can be given out as part of a huge page. Sleeps, and takes no mmap lock.
    ///
    /// # Errors
    ///
    /// `EINVAL`: no such page, or too many for the buffers, or buffers not made for this. `EBUSY`: too
    /// many callers at once.
    pub(crate) fn by_pfn<T: Operations>(
        memory: &PrivateMemory<T>,
        indices: Range<usize>,
        mut lease: Lease<'a>,
    ) -> Result<Self> {
        let buffers = &mut *lease.buffers;
        let pages = indices.len();
        if pages == 0 || pages > buffers.anon_vmas.len() {
            return Err(EINVAL);
        }
        // Until they are locked: nothing keeps tasks that map a huge page from clearing their entries.
        let _single = memory.keep_single(indices.clone())?;
        // The kernel wants a dense array.
        let mut wanted = 0;
        for index in indices {
            let Some(page) = memory.page_in_use(index).filter(|page| !page.is_large()) else {
                continue;
            };
            let Some(anon_vma) = AnonVma::of(page) else {
                continue;
            };
            let (Some(entry), Some(slot)) = (
                buffers.src.get_mut(wanted),
                buffers.anon_vmas.get_mut(wanted),
            ) else {
                break;
            };
            *entry = page.pfn();
            *slot = Some(anon_vma);
            wanted += 1;
        }
        if wanted > 0 {
            // The entries that it clears are single; a hold of a huge one, which another process may
            // have at the same address, is waited for in vain.
            let _clears = OwnZaps::begin();
            // SAFETY: The first `wanted` entries are pfns of device pages.
            let collected =
                unsafe { bindings::migrate_device_pfns(buffers.src.as_mut_ptr(), wanted) };
            to_result(collected)
                .inspect_err(|_| buffers.anon_vmas.iter_mut().for_each(|slot| *slot = None))?;
        }
        buffers.dst[..wanted].fill(0);
        let mut migration = Self::collected(Kind::Pfns, lease, wanted);
        migration.leave_copied();
        Ok(migration)
    }

    /// Skips huge pages.
    fn leave_huge(&mut self) {
        let src = &mut self.inner.lease.buffers.src;
        for entry in src.iter_mut().take(self.inner.pages) {
            if *entry & COMPOUND != 0 {
                *entry &= !MIGRATE;
            }
        }
    }

    /// Skips pages that have been copied already.
    ///
    /// Another migration that has migrated a page back unlocks it just before it drops its
    /// reference. A task that knows the page by its pfn can come between; nothing maps the page any
    /// more, it will be free soon, and the kernel warns about moving a charge that it has lost.
    fn leave_copied(&mut self) {
        for index in 0..self.inner.pages {
            let is_left = match self.source(index) {
                Source::Page(page) | Source::HugePage(page) => !page.is_charged(),
                Source::Skipped | Source::Hole | Source::HugeHole => false,
            };
            let src = &mut self.inner.lease.buffers.src;
            if let Some(entry) = src.get_mut(index).filter(|_| is_left) {
                *entry &= !MIGRATE;
            }
        }
    }

    fn collected(kind: Kind, lease: Lease<'a>, pages: usize) -> Self {
        Self {
            inner: Inner {
                kind,
                lease,
                pages,
                installed: false,
                mapped: None,
            },
            _state: PhantomData,
        }
    }

    /// How many pages were collected that are not holes, and how many are holes; those of huge
    /// pages and huge holes apart.
    pub(crate) fn collected_pages(&self) -> CollectedPages {
        let mut counts = CollectedPages::default();
        let mut index = 0;
        let src = &self.inner.lease.buffers.src;
        while let Some(&entry) = src.get(index).filter(|_| index < self.inner.pages) {
            let pages = if entry & MIGRATE != 0 {
                pages_of(entry)
            } else {
                1
            };
            match (
                entry & MIGRATE != 0,
                entry & VALID != 0,
                entry & COMPOUND != 0,
            ) {
                (false, ..) => {}
                (true, true, false) => counts.single += pages,
                (true, true, true) => counts.huge += pages,
                (true, false, false) => counts.single_holes += pages,
                (true, false, true) => counts.huge_holes += pages,
            }
            index += pages;
        }
        counts
    }
}
