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

mod buffers;
mod source;
mod transfer;

pub(crate) use self::{
    buffers::{
        BufferPool,
        Lease, //
    },
    source::{
        Select,
        Source,
        Visit, //
    },
    transfer::{
        Cursor,
        Transfer, //
    }, //
};
use super::{
    anon_vma::AnonVma,
    bindings,
    mm::Vma,
    page::{
        Destination,
        PageRef,
        HUGE_PAGES, //
    },
    pagemap::{
        Fault,
        Operations,
        PrivateMemory, //
    },
    virtqueue::{
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
const COMPOUND: usize = bindings::MIGRATE_PFN_COMPOUND as usize;
const SHIFT: u32 = bindings::MIGRATE_PFN_SHIFT;

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

/// Pages that are mapped for the device, or unmapped, with interrupts off.
const MAPPED_AT_ONCE: usize = 64;

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
    lease: Lease<'a>,
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
        vma: Vma<'a>,
        range: Range<usize>,
        select: Select,
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
        select: Select,
        memory: &PrivateMemory<T>,
        lease: Lease<'a>,
    ) -> Result<Self> {
        let page = fault.page().as_raw().as_ptr();
        Self::setup(*fault.vma(), range, select, memory, lease, page)
    }

    fn setup<T: Operations>(
        vma: Vma<'a>,
        range: Range<usize>,
        select: Select,
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
                Select::System | Select::SystemHuge => {
                    bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_SYSTEM
                }
                Select::Device => bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
            } as usize,
            fault_page,
        };
        let as_one = match select {
            Select::System => false,
            Select::SystemHuge => vma.wants_huge_pages(),
            // What the mapping wants now does not matter: a CPU fault on a huge page could not make
            // progress otherwise.
            Select::Device => true,
        };
        if as_one {
            args.flags |= bindings::migrate_vma_direction_MIGRATE_VMA_SELECT_COMPOUND as usize;
        }
        // SAFETY: The mmap lock is held for `'a`; both arrays hold `pages` entries; a fault page
        // comes from a `Fault`, which proves that it is a locked device page.
        to_result(unsafe { bindings::migrate_vma_setup(&mut args) })?;
        Ok(Self::collected(Kind::Vma(args), lease, pages))
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
        mut lease: Lease<'a>,
    ) -> Result<Self> {
        let buffers = &mut lease.buffers;
        let pages = indices.len();
        if pages == 0 || pages > buffers.anon_vmas.len() {
            return Err(EINVAL);
        }
        // The kernel wants a dense array, and a huge page followed by room for its tails.
        let mut wanted = 0;
        for index in indices {
            let Some(page) = memory.page_in_use(index) else {
                continue;
            };
            let Some(anon_vma) = AnonVma::of(page) else {
                continue;
            };
            let span = if page.is_large() { HUGE_PAGES } else { 1 };
            let Some(entries) = buffers.src.get_mut(wanted..wanted + span) else {
                break;
            };
            for (entry, pfn) in entries.iter_mut().zip(page.pfn()..) {
                *entry = pfn;
            }
            buffers.anon_vmas[wanted] = Some(anon_vma);
            wanted += span;
        }
        if wanted > 0 {
            // SAFETY: The first `wanted` entries are pfns of device pages.
            let collected =
                unsafe { bindings::migrate_device_pfns(buffers.src.as_mut_ptr(), wanted) };
            to_result(collected)
                .inspect_err(|_| buffers.anon_vmas.iter_mut().for_each(|slot| *slot = None))?;
        }
        buffers.dst[..wanted].fill(0);
        Ok(Self::collected(Kind::Pfns, lease, wanted))
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

    /// The page at `index` of the migration.
    pub(crate) fn source(&self, index: usize) -> Source<'_> {
        match self.inner.lease.buffers.src.get(index) {
            Some(&entry) if entry & MIGRATE != 0 && index < self.inner.pages => {
                // SAFETY: The migration holds a reference until it is dropped.
                let page = page_of(entry).map(|page| unsafe { PageRef::from_raw(page) });
                match (page, entry & COMPOUND != 0) {
                    (Some(page), false) => Source::Page(page),
                    (Some(page), true) => Source::HugePage(page),
                    (None, false) => Source::Hole,
                    (None, true) => Source::HugeHole,
                }
            }
            _ => Source::Skipped,
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

    /// Lets `decide` see every source in turn and give it a destination.
    pub(crate) fn for_each_source(&mut self, mut decide: impl FnMut(&mut Visit<'_, 'a>)) {
        let mut index = 0;
        while index < self.inner.pages {
            let pages = self.source(index).pages();
            decide(&mut Visit {
                migration: self,
                index,
                pages,
            });
            index += pages;
        }
    }

    fn put_destination(&mut self, index: usize, destination: Destination) {
        self.clear_destination(index);
        let compound = if destination.is_huge() { COMPOUND } else { 0 };
        if let Some(entry) = self.inner.lease.buffers.dst.get_mut(index) {
            let page = destination.into_raw();
            // SAFETY: The page is valid.
            let pfn = unsafe { bindings::vhmm_page_to_pfn(page.as_ptr()) };
            *entry = (pfn << SHIFT) | VALID | compound;
        }
    }

    /// Whether the page at `index` has a destination.
    pub(crate) fn has_destination(&self, index: usize) -> bool {
        let entry = self.inner.lease.buffers.dst.get(index);
        entry.is_some_and(|&entry| entry & VALID != 0)
    }

    /// The next thing to be copied, at or after the place of `cursor`, which moves on.
    pub(crate) fn next_transfer(&self, cursor: &mut Cursor) -> Option<Transfer> {
        let buffers = &self.inner.lease.buffers;
        while cursor.head < self.inner.pages {
            let Cursor { head, tail } = *cursor;
            let source = buffers.src.get(head).copied().unwrap_or(0);
            let destination = buffers.dst.get(head + tail).copied().unwrap_or(0);
            let span = if source & MIGRATE != 0 {
                pages_of(source)
            } else {
                1
            };
            let pages = pages_of(destination);
            cursor.tail += pages;
            if cursor.tail >= span {
                *cursor = Cursor {
                    head: head + span,
                    tail: 0,
                };
            }
            if destination & VALID != 0 && source & MIGRATE != 0 {
                return Some(Transfer {
                    head,
                    tail,
                    pages,
                    source: (source & VALID != 0).then_some((source >> SHIFT) + tail),
                    destination: destination >> SHIFT,
                });
            }
        }
        None
    }

    /// All that is to be copied.
    pub(crate) fn transfers(&self) -> impl Iterator<Item = Transfer> + '_ {
        let mut cursor = Cursor::default();
        core::iter::from_fn(move || self.next_transfer(&mut cursor))
    }

    /// Takes the destination back and frees it: the page stays where it is.
    pub(crate) fn clear_destination(&mut self, index: usize) {
        self.inner.clear_destination(index);
    }

    /// Maps the system side of everything that is to be copied, for `queue`'s device. What cannot
    /// be mapped loses its destination. Returns whether everything is mapped.
    pub(crate) fn map(&mut self, queue: &'a Queue, direction: DmaDirection) -> bool {
        self.inner.unmap();
        self.inner.mapped = Some((queue, direction));
        let mut complete = true;
        let pages = self.inner.pages;
        let buffers = &mut self.inner.lease.buffers;
        let entries = match direction {
            DmaDirection::ToDevice => &buffers.src,
            DmaDirection::FromDevice => &buffers.dst,
        };
        let mut rest = entries.iter().zip(buffers.dma.iter_mut()).take(pages);
        let mut left = pages;
        while left > 0 {
            let mapper = queue.mapper();
            for (&entry, slot) in rest.by_ref().take(MAPPED_AT_ONCE) {
                let Some(page) = page_of(entry) else {
                    continue;
                };
                let bytes = pages_of(entry) * PAGE_SIZE;
                // SAFETY: The migration holds the page until it is dropped, and unmaps it before.
                match unsafe { mapper.map(page, bytes, direction) } {
                    Ok(address) => *slot = Some((address, bytes)),
                    Err(_) => complete = false,
                }
            }
            left = left.saturating_sub(MAPPED_AT_ONCE);
        }
        if !complete {
            let mut cursor = Cursor::default();
            while let Some(transfer) = self.next_transfer(&mut cursor) {
                if transfer.source.is_some() && self.dma_address(&transfer).is_none() {
                    self.clear_destination(transfer.index());
                }
            }
        }
        complete
    }

    /// Where the device finds the system side of a transfer; `None` if there is nothing to read.
    pub(crate) fn dma_address(&self, transfer: &Transfer) -> Option<u64> {
        let (_, direction) = self.inner.mapped?;
        let (slot, offset) = match direction {
            // A huge page is mapped as a whole, wherever its pages go.
            DmaDirection::ToDevice => (transfer.head, transfer.tail * PAGE_SIZE),
            DmaDirection::FromDevice => (transfer.index(), 0),
        };
        let (address, _) = self.inner.lease.buffers.dma.get(slot).copied().flatten()?;
        Some(address.get() + offset as u64)
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

impl Migration<'_, Installed> {
    /// How many pages are now at their destinations.
    pub(crate) fn moved(&self) -> usize {
        let entries = self
            .inner
            .lease
            .buffers
            .src
            .iter()
            .zip(&self.inner.lease.buffers.dst);
        entries
            .take(self.inner.pages)
            .filter(|(src, dst)| *src & MIGRATE != 0 && *dst & VALID != 0)
            .map(|(_, dst)| pages_of(*dst))
            .sum()
    }
}

impl Inner<'_> {
    fn clear_destination(&mut self, index: usize) {
        let Some(entry) = self.lease.buffers.dst.get_mut(index) else {
            return;
        };
        let entry = core::mem::take(entry);
        if let Some(page) = page_of(entry) {
            // SAFETY: `put_destination` put a locked page with a reference there, and nothing is
            // installed yet.
            drop(unsafe { Destination::from_raw(page, entry & COMPOUND != 0) });
        }
    }

    fn unmap(&mut self) {
        let Some((queue, direction)) = self.mapped.take() else {
            return;
        };
        let addresses = &mut self.lease.buffers.dma[..self.pages];
        for addresses in addresses.chunks_mut(MAPPED_AT_ONCE) {
            let mapper = queue.mapper();
            for address in addresses {
                if let Some((address, bytes)) = address.take() {
                    // SAFETY: `map` made the address with this queue, length and direction; the
                    // device is done (see the module's documentation).
                    unsafe { mapper.unmap(address, bytes, direction) };
                }
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
                    self.lease.buffers.src.as_mut_ptr(),
                    self.lease.buffers.dst.as_mut_ptr(),
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
                    self.lease.buffers.src.as_mut_ptr(),
                    self.lease.buffers.dst.as_mut_ptr(),
                    self.pages,
                )
            },
        }
        if matches!(self.kind, Kind::Pfns) {
            // Only now may the reverse mappings go.
            for anon_vma in &mut self.lease.buffers.anon_vmas {
                *anon_vma = None;
            }
        }
    }
}

/// Pages that an entry stands for.
fn pages_of(entry: usize) -> usize {
    if entry & COMPOUND != 0 {
        HUGE_PAGES
    } else {
        1
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
