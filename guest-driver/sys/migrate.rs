// SPDX-License-Identifier: GPL-2.0-only

//! Migration of pages between system memory and device-private memory.
//!
//! C header: [`include/linux/migrate.h`](srctree/include/linux/migrate.h)
//!
//! A [`Migration`] goes through three states, and dropping it in any of them leaves every page
//! where a reader finds it:
//!
//! 1. [`Collected`]: the sources are isolated, locked and unmapped. Destinations may be given, and
//!    the copy is made. Dropped here, all sources are mapped again.
//! 2. [`Installed`]: the sources that have a destination are replaced, if the kernel still could.
//! 3. Dropped: CPUs that touched a page go on.
//!
//! Whoever makes the device copy must have the request back, or have reset the device, before the
//! migration is dropped: a page that is still written must never be freed or mapped.

use super::{
    anon_vma::AnonVma,
    bindings,
    mm::Vma,
    page::{
        Destination,
        PageRef, //
    },
    pagemap::{
        Fault,
        Operations,
        PrivateMemory, //
    },
    virtqueue::{
        DmaAddress,
        DmaDirection,
        Queue, //
    }, //
};
use core::{
    marker::PhantomData,
    ops::Range,
    ptr::{
        null_mut,
        NonNull, //
    }, //
};
use kernel::{
    error::to_result,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

const VALID: usize = bindings::MIGRATE_PFN_VALID as usize;
const MIGRATE: usize = bindings::MIGRATE_PFN_MIGRATE as usize;
const SHIFT: u32 = bindings::MIGRATE_PFN_SHIFT;

/// What a migration writes down for each page. Allocated once and used again and again.
pub(crate) struct Buffers {
    src: KVec<usize>,
    dst: KVec<usize>,
    dma: KVec<Option<DmaAddress>>,
    anon_vmas: KVec<Option<AnonVma>>,
}

impl Buffers {
    /// Buffers for up to `pages` pages; `by_pfn` if they are also for [`Migration::by_pfn`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(pages: usize, by_pfn: bool) -> Result<Self> {
        let mut dma = KVec::with_capacity(pages, GFP_KERNEL)?;
        let mut anon_vmas = KVec::with_capacity(if by_pfn { pages } else { 0 }, GFP_KERNEL)?;
        for _ in 0..pages {
            dma.push(None, GFP_KERNEL)?;
            if by_pfn {
                anon_vmas.push(None, GFP_KERNEL)?;
            }
        }
        Ok(Self {
            src: KVec::from_elem(0, pages, GFP_KERNEL)?,
            dst: KVec::from_elem(0, pages, GFP_KERNEL)?,
            dma,
            anon_vmas,
        })
    }

    /// Pages that there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.src.len()
    }
}

/// Which pages a migration is to collect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Select {
    /// Pages in system memory, and holes of anonymous mappings.
    System,
    /// Pages of the given device memory. (The kernel also reports holes.)
    Device,
}

/// One page as it was collected.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Not collected; the kernel does not say why.
    Skipped,
    /// Nothing is there, or the zero page.
    Hole,
    /// A locked, unmapped page.
    Page(PageRef<'a>),
}

/// State: sources are collected.
pub(crate) struct Collected;
/// State: destinations are installed.
pub(crate) struct Installed;

/// How the pages were found.
enum Kind {
    Vma(bindings::migrate_vma),
    Pfns,
}

/// A migration in progress. Holds locks of pages that CPUs may wait for: keep it short, and on
/// the stack.
#[must_use = "dropping a migration puts all pages back"]
pub(crate) struct Migration<'a, S> {
    inner: Inner<'a>,
    _state: PhantomData<S>,
}

struct Inner<'a> {
    kind: Kind,
    buffers: &'a mut Buffers,
    pages: usize,
    installed: bool,
    mapped: Option<(&'a Queue, DmaDirection)>,
}

impl<'a> Migration<'a, Collected> {
    /// Collects the pages of `range`, which must lie within `vma`, be page aligned and fit into
    /// the buffers.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the range or the mapping is not one that can be migrated.
    pub(crate) fn of_range<T: Operations>(
        vma: &'a Vma<'_>,
        range: Range<usize>,
        select: Select,
        memory: &PrivateMemory<T>,
        buffers: &'a mut Buffers,
    ) -> Result<Self> {
        Self::setup(vma, range, select, memory, buffers, null_mut())
    }

    /// Collects device pages around a CPU fault. `range` must contain the fault's address.
    ///
    /// # Errors
    ///
    /// As [`Migration::of_range`].
    pub(crate) fn of_fault<T: Operations>(
        fault: &'a Fault<'_>,
        range: Range<usize>,
        memory: &PrivateMemory<T>,
        buffers: &'a mut Buffers,
    ) -> Result<Self> {
        let page = fault.page().as_raw().as_ptr();
        Self::setup(fault.vma(), range, Select::Device, memory, buffers, page)
    }

    fn setup<T: Operations>(
        vma: &'a Vma<'_>,
        range: Range<usize>,
        select: Select,
        memory: &PrivateMemory<T>,
        buffers: &'a mut Buffers,
        fault_page: *mut bindings::page,
    ) -> Result<Self> {
        let pages = range.end.checked_sub(range.start).ok_or(EINVAL)? >> PAGE_SHIFT;
        if pages == 0
            || pages > buffers.capacity()
            || range.start % PAGE_SIZE != 0
            || range.start < vma.start()
            || range.end > vma.end()
        {
            return Err(EINVAL);
        }
        let mut args = bindings::migrate_vma {
            vma: vma.as_raw(),
            dst: buffers.dst.as_mut_ptr(),
            src: buffers.src.as_mut_ptr(),
            cpages: 0,
            npages: 0,
            start: range.start,
            end: range.start + (pages << PAGE_SHIFT),
            pgmap_owner: memory.owner(),
            flags: match select {
                Select::System => bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_SYSTEM,
                Select::Device => bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
            } as usize,
            fault_page,
        };
        // SAFETY: The mmap lock is held for `'a`; both arrays hold `pages` entries; a fault page
        // comes from a `Fault`, which proves that it is a locked device page.
        to_result(unsafe { bindings::migrate_vma_setup(&mut args) })?;
        Ok(Self::collected(Kind::Vma(args), buffers, pages))
    }

    /// Collects device pages by their index, wherever they are mapped. Pages that are free, busy
    /// or not mapped anywhere are reported as skipped. Sleeps, and takes no mmap lock.
    ///
    /// # Errors
    ///
    /// `EINVAL`: no such page, or too many for the buffers, or buffers not made for this.
    pub(crate) fn by_pfn<T: Operations>(
        memory: &PrivateMemory<T>,
        indices: Range<usize>,
        buffers: &'a mut Buffers,
    ) -> Result<Self> {
        let pages = indices.len();
        if pages == 0 || pages > buffers.anon_vmas.len() {
            return Err(EINVAL);
        }
        for (slot, index) in indices.enumerate() {
            let pfn = memory.pfn(index).ok_or(EINVAL)?;
            // SAFETY: The pagemap covers the pfn for the lifetime of `memory`.
            let page = unsafe {
                let page = bindings::vhmm_pfn_to_page(pfn);
                PageRef::from_raw(NonNull::new_unchecked(page))
            };
            let anon_vma = AnonVma::of(page);
            // Entries are overwritten from the front while the pages that can be pinned are
            // counted, so the array stays dense as the kernel wants it.
            buffers.src[slot] = pfn;
            buffers.anon_vmas[slot] = anon_vma;
        }
        let mut wanted = 0;
        for slot in 0..pages {
            if buffers.anon_vmas[slot].is_some() {
                buffers.src.swap(wanted, slot);
                buffers.anon_vmas.swap(wanted, slot);
                wanted += 1;
            }
        }
        if wanted > 0 {
            // SAFETY: The first `wanted` entries are pfns of device pages.
            to_result(unsafe { bindings::migrate_device_pfns(buffers.src.as_mut_ptr(), wanted) })?;
        }
        buffers.dst[..wanted].fill(0);
        Ok(Self::collected(Kind::Pfns, buffers, wanted))
    }

    fn collected(kind: Kind, buffers: &'a mut Buffers, pages: usize) -> Self {
        Self {
            inner: Inner {
                kind,
                buffers,
                pages,
                installed: false,
                mapped: None,
            },
            _state: PhantomData,
        }
    }

    /// The page at `index` of the migration.
    pub(crate) fn source(&self, index: usize) -> Source<'_> {
        match self.inner.buffers.src.get(index) {
            Some(&entry) if entry & MIGRATE != 0 && index < self.inner.pages => {
                match page_of(entry) {
                    // SAFETY: The migration holds a reference until it is dropped.
                    Some(page) => Source::Page(unsafe { PageRef::from_raw(page) }),
                    None => Source::Hole,
                }
            }
            _ => Source::Skipped,
        }
    }

    /// Gives the page at `index` a destination. Without one it stays where it is.
    pub(crate) fn set_destination(&mut self, index: usize, destination: Destination) {
        if matches!(self.source(index), Source::Skipped) {
            return;
        }
        self.clear_destination(index);
        let page = destination.into_raw();
        // SAFETY: The page is valid.
        let pfn = unsafe { bindings::vhmm_page_to_pfn(page.as_ptr()) };
        self.inner.buffers.dst[index] = (pfn << SHIFT) | VALID;
    }

    /// The destination of the page at `index`.
    pub(crate) fn destination(&self, index: usize) -> Option<PageRef<'_>> {
        let page = page_of(*self.inner.buffers.dst.get(index)?)?;
        // SAFETY: The migration owns the destination until it is dropped.
        Some(unsafe { PageRef::from_raw(page) })
    }

    /// Takes the destination back and frees it: the page stays where it is.
    pub(crate) fn clear_destination(&mut self, index: usize) {
        self.inner.clear_destination(index);
    }

    /// Maps the system side of every page that has a destination, for `queue`'s device. A page
    /// that cannot be mapped loses its destination.
    pub(crate) fn map(&mut self, queue: &'a Queue, direction: DmaDirection) {
        self.inner.unmap();
        self.inner.mapped = Some((queue, direction));
        let mapper = queue.mapper();
        for index in 0..self.inner.pages {
            let side = match direction {
                DmaDirection::ToDevice => self.inner.buffers.src[index],
                DmaDirection::FromDevice => self.inner.buffers.dst[index],
            };
            if self.inner.buffers.dst[index] == 0 {
                continue;
            }
            let Some(page) = page_of(side) else {
                continue;
            };
            // SAFETY: The migration holds the page until it is dropped, and unmaps it before.
            if let Ok(address) = unsafe { mapper.map(page, PAGE_SIZE, direction) } {
                self.inner.buffers.dma[index] = Some(address);
            }
        }
        drop(mapper);
        // Freeing a page is not for a section with interrupts off.
        for index in 0..self.inner.pages {
            let is_hole = matches!(self.source(index), Source::Hole);
            if self.inner.buffers.dma[index].is_none() && !is_hole {
                self.inner.clear_destination(index);
            }
        }
    }

    /// Where the device finds the system side of the page at `index`.
    pub(crate) fn dma_address(&self, index: usize) -> Option<DmaAddress> {
        self.inner.buffers.dma.get(index).copied().flatten()
    }

    /// Replaces the sources by their destinations, where the kernel still can.
    pub(crate) fn install(mut self) -> Migration<'a, Installed> {
        self.inner.unmap();
        self.inner.install();
        Migration {
            inner: self.inner,
            _state: PhantomData,
        }
    }
}

impl<S> Migration<'_, S> {
    /// Pages that the migration looked at.
    pub(crate) fn len(&self) -> usize {
        self.inner.pages
    }
}

impl Migration<'_, Installed> {
    /// Whether the page at `index` is now at its destination.
    pub(crate) fn has_moved(&self, index: usize) -> bool {
        index < self.inner.pages
            && self.inner.buffers.src[index] & MIGRATE != 0
            && self.inner.buffers.dst[index] != 0
    }
}

impl Inner<'_> {
    fn clear_destination(&mut self, index: usize) {
        let Some(entry) = self.buffers.dst.get_mut(index) else {
            return;
        };
        if let Some(page) = page_of(core::mem::take(entry)) {
            // SAFETY: `set_destination` put a locked page with a reference there, and nothing is
            // installed yet.
            drop(unsafe { Destination::from_raw(page) });
        }
    }

    fn unmap(&mut self) {
        let Some((queue, direction)) = self.mapped.take() else {
            return;
        };
        let mapper = queue.mapper();
        for address in &mut self.buffers.dma[..self.pages] {
            if let Some(address) = address.take() {
                // SAFETY: `map` made the address with this queue, length and direction; the
                // device is done (see the module's documentation).
                unsafe { mapper.unmap(address, PAGE_SIZE, direction) };
            }
        }
    }

    fn install(&mut self) {
        self.installed = true;
        match &mut self.kind {
            // SAFETY: `setup` succeeded with these arguments.
            Kind::Vma(args) => unsafe { bindings::migrate_vma_pages(args) },
            // SAFETY: The arrays are those that `migrate_device_pfns` filled.
            Kind::Pfns => unsafe {
                bindings::migrate_device_pages(
                    self.buffers.src.as_mut_ptr(),
                    self.buffers.dst.as_mut_ptr(),
                    self.pages,
                )
            },
        }
    }
}

impl Drop for Inner<'_> {
    fn drop(&mut self) {
        self.unmap();
        if !self.installed {
            // What has no destination is mapped again.
            for index in 0..self.pages {
                self.clear_destination(index);
            }
        }
        match &mut self.kind {
            // SAFETY: As in `install`; this runs once.
            Kind::Vma(args) => unsafe { bindings::migrate_vma_finalize(args) },
            // SAFETY: As above.
            Kind::Pfns => unsafe {
                bindings::migrate_device_finalize(
                    self.buffers.src.as_mut_ptr(),
                    self.buffers.dst.as_mut_ptr(),
                    self.pages,
                )
            },
        }
        if matches!(self.kind, Kind::Pfns) {
            // Only now may the reverse mappings go.
            for anon_vma in &mut self.buffers.anon_vmas {
                *anon_vma = None;
            }
        }
    }
}

/// The page of an entry, if it has one.
fn page_of(entry: usize) -> Option<NonNull<bindings::page>> {
    if entry & VALID == 0 {
        return None;
    }
    // SAFETY: A valid entry holds a pfn with a struct page.
    NonNull::new(unsafe { bindings::vhmm_pfn_to_page(entry >> SHIFT) })
}
