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
//! A page that the device still writes must never be freed or mapped for a CPU. So a migration that
//! is mapped for the device knows the request that carries its addresses ([`Carrier`]). If it is
//! dropped or installed while the device has that request, it gives its destinations up for good,
//! however the request was lost sight of. A migration that is forgotten keeps all its pages for good,
//! which is no danger either.
//!
//! What types cannot see is the contents of a request: addresses are bytes of the wire format there,
//! and one that is written into another request than the carrier is a bug of the writer.
//!
//! [`Carrier`]: crate::sys::virtio::request::Carrier

mod buffers;
mod collect;
mod entry;
mod mapped;
mod mapping;
mod source;
mod transfer;
mod visit;

pub(crate) use self::{
    buffers::{
        BufferPool,
        Lease, //
    },
    source::{
        Select,
        Source, //
    },
    transfer::{
        Cursor,
        Transfer, //
    },
    visit::Visit, //
};
use self::{
    entry::{
        page_of,
        pages_of,
        COMPOUND,
        MIGRATE,
        SHIFT,
        VALID, //
    },
    mapped::Mapped, //
};
use crate::sys::{
    address_space::zap_guard::OwnZaps,
    bindings,
    device_memory::page::{
        Destination,
        PageRef, //
    }, //
};
use core::marker::PhantomData;
use kernel::prelude::*;

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
///
/// # Examples
///
/// ```ignore
/// let guard = MmapReadGuard::lock(&mm, || false)?;
/// let vma = Vma::find(&guard, range.start).ok_or(EFAULT)?;
/// let mut migration =
///     Migration::of_range(vma, range, Select::System, &memory, buffers.lease())?;
/// migration.for_each_source(|visit| {
///     if let Source::Page(_) = visit.source() {
///         if let Ok(page) = memory.destination(visit.index()) {
///             visit.give(page);
///         }
///     }
/// });
/// migration.map(queue, request.carrier(), DmaDirection::ToDevice)?;
/// for transfer in migration.transfers() {
///     copy(migration.dma_address(&transfer), transfer.destination);
/// }
/// // The device has answered for every copy.
/// let moved = migration.install().moved();
/// ```
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
    mapped: Option<Mapped<'a>>,
}

impl<'a> Migration<'a, Collected> {
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

    /// Takes the destination back and frees it: the page stays where it is.
    pub(crate) fn clear_destination(&mut self, index: usize) {
        self.inner.clear_destination(index);
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
        let buffers = &self.inner.lease.buffers;
        let (mut index, mut moved) = (0, 0);
        while index < self.inner.pages {
            let src = buffers.src.get(index).copied().unwrap_or(0);
            let dst = buffers.dst.get(index).copied().unwrap_or(0);
            let pages = pages_of(dst);
            if src & MIGRATE != 0 && dst & VALID != 0 {
                moved += pages;
            }
            index += pages;
        }
        moved
    }
}

impl Inner<'_> {
    fn clear_destination(&mut self, index: usize) {
        self.unmap_destination(index);
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

    fn install(&mut self) {
        self.installed = true;
        // A huge page is split for single destinations. Only its own migration entry is cleared.
        let _clears = OwnZaps::begin();
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

#[kunit_tests(virtio_hmm_migrate)]
mod tests {
    use super::*;
    use crate::sys::{
        address_space::{
            mm::Vma,
            mmap_lock::MmapReadGuard, //
        },
        services::kunit::{
            buffers,
            device,
            give_each,
            TestDevice,
            TestMemory, //
        },
        virtio::{
            request::Idle,
            virtqueue::{
                DmaDirection,
                Queue, //
            }, //
        }, //
    };
    use core::ops::Range;
    use kernel::page::PAGE_SIZE;

    const PAGES: usize = 8;

    /// Collects `range` of the calling test's memory and lets `then` go on.
    fn collect<R>(
        memory: &TestMemory,
        range: Range<usize>,
        select: Select<'_>,
        device: &TestDevice,
        then: impl FnOnce(Migration<'_, Collected>) -> Result<R>,
    ) -> Result<R> {
        let (mm, buffers) = (memory.mm()?, buffers(PAGES)?);
        let guard = MmapReadGuard::lock(&mm, || false)?;
        let vma = Vma::find(&guard, memory.range().start).ok_or(EFAULT)?;
        let lease = buffers.lease();
        let migration = Migration::of_range(vma, range, select, device, lease)?;
        then(migration)
    }

    /// Moves all pages to the device pages with the same numbers. Returns how many moved.
    fn to_device(memory: &TestMemory, device: &TestDevice) -> Result<usize> {
        collect(
            memory,
            memory.range(),
            Select::System,
            device,
            |mut migration| {
                give_each(&mut migration, |page| device.destination(page))?;
                Ok(migration.install().moved())
            },
        )
    }

    /// Moves what is on the device to system memory. Returns how many pages moved.
    fn to_system(memory: &TestMemory, device: &TestDevice) -> Result<usize> {
        collect(
            memory,
            memory.range(),
            Select::Device,
            device,
            |mut migration| {
                give_each(&mut migration, |_| Destination::system())?;
                Ok(migration.install().moved())
            },
        )
    }

    #[test]
    fn what_is_not_installed_stays_where_it_was() -> Result {
        let (memory, (device, heard)) = (TestMemory::new(PAGES)?, device(PAGES)?);
        memory.fill()?;
        collect(
            &memory,
            memory.range(),
            Select::System,
            &device,
            |mut migration| {
                assert_eq!(migration.collected_pages().single, PAGES);
                let given = give_each(&mut migration, |page| device.destination(page))?;
                assert_eq!(given, PAGES);
                assert_eq!(migration.transfers().count(), PAGES);
                migration.clear_destination(0);
                assert!(!migration.has_destination(0));
                assert_eq!(heard.freed(), 1);
                drop(migration);
                assert_eq!(heard.freed(), PAGES);
                Ok(())
            },
        )?;
        for page in 0..PAGES {
            assert_eq!(usize::from(memory.read(page)?), page);
        }
        assert_eq!(heard.faults(), 0);
        Ok(())
    }

    #[test]
    fn what_is_installed_is_on_the_device_until_it_comes_home() -> Result {
        let (memory, (device, heard)) = (TestMemory::new(PAGES)?, device(PAGES)?);
        memory.fill()?;
        assert_eq!(to_device(&memory, &device)?, PAGES);
        assert_eq!(memory.read(0), Err(EFAULT));
        assert_eq!(heard.faults(), 1);
        assert_eq!(
            (to_system(&memory, &device)?, heard.freed()),
            (PAGES, PAGES)
        );
        assert!(memory.read(0).is_ok());
        assert_eq!(heard.faults(), 1);
        Ok(())
    }

    /// Maps all pages on their way to the device for a request, which is submitted or is not, and drops
    /// the migration. Returns how many destinations that freed.
    fn freed_with(is_submitted: bool) -> Result<usize> {
        let (memory, (device, heard)) = (TestMemory::new(PAGES)?, device(PAGES)?);
        memory.fill()?;
        let (mm, buffers) = (memory.mm()?, buffers(PAGES)?);
        let queue = KBox::pin_init(Queue::new(0), GFP_KERNEL)?;
        let request = Idle::new(1, 1)?;
        let guard = MmapReadGuard::lock(&mm, || false)?;
        let vma = Vma::find(&guard, memory.range().start).ok_or(EFAULT)?;
        let (range, lease) = (memory.range(), buffers.lease());
        let mut migration = Migration::of_range(vma, range, Select::System, &device, lease)?;
        give_each(&mut migration, |page| device.destination(page))?;
        // The queue is closed, so there are no addresses.
        let mapped = migration.map(&queue, request.carrier(), DmaDirection::ToDevice);
        assert!(mapped == Err(ENODEV));
        let submitted = is_submitted.then(|| request.submit());
        drop(migration);
        drop(guard);
        let freed = heard.freed();
        if let Some((ring, submitted)) = submitted {
            ring.finish_cancelled();
            drop(submitted);
            for page in (0..PAGES).filter(|_| freed == 0) {
                let page = device.page_in_use(page).ok_or(EINVAL)?.as_raw();
                // SAFETY: The page was lost as it was given: single, locked, with its reference.
                drop(unsafe { Destination::from_raw(page, false) });
            }
        }
        for page in 0..PAGES {
            assert_eq!(usize::from(memory.read(page)?), page);
        }
        Ok(freed)
    }

    #[test]
    fn what_the_device_may_still_write_is_not_freed() -> Result {
        assert_eq!(freed_with(false)?, PAGES);
        assert_eq!(freed_with(true)?, 0);
        Ok(())
    }

    #[test]
    fn a_hole_moves_without_a_page() -> Result {
        let (memory, (device, _)) = (TestMemory::new(PAGES)?, device(PAGES)?);
        collect(
            &memory,
            memory.range(),
            Select::System,
            &device,
            |mut migration| {
                assert_eq!(migration.collected_pages().single_holes, PAGES);
                give_each(&mut migration, |page| device.destination(page))?;
                assert!(migration
                    .transfers()
                    .all(|transfer| transfer.source.is_none()));
                assert_eq!(migration.install().moved(), PAGES);
                Ok(())
            },
        )?;
        assert_eq!(to_system(&memory, &device)?, PAGES);
        Ok(())
    }

    #[test]
    fn pages_of_another_device_are_not_collected() -> Result {
        let memory = TestMemory::new(PAGES)?;
        let ((one, _), (other, _)) = (device(PAGES)?, device(PAGES)?);
        memory.fill()?;
        assert_eq!(to_device(&memory, &one)?, PAGES);
        assert_eq!(to_system(&memory, &other)?, 0);
        assert_eq!(to_device(&memory, &other)?, 0);
        assert_eq!(to_system(&memory, &one)?, PAGES);
        Ok(())
    }

    #[test]
    fn pages_are_found_by_their_numbers() -> Result {
        let (memory, (device, heard)) = (TestMemory::new(PAGES)?, device(PAGES)?);
        memory.fill()?;
        assert_eq!(to_device(&memory, &device)?, PAGES);
        let buffers = buffers(PAGES)?;
        let mut migration = Migration::by_pfn(&device, 0..PAGES, buffers.lease())?;
        give_each(&mut migration, |_| Destination::system())?;
        let installed = migration.install();
        assert_eq!(installed.moved(), PAGES);
        drop(installed);
        assert_eq!(heard.freed(), PAGES);
        assert!(memory.read(0).is_ok());
        Ok(())
    }

    #[test]
    fn a_range_must_be_one_of_the_mapping() -> Result {
        let (memory, (device, _)) = (TestMemory::new(PAGES + 1)?, device(PAGES)?);
        let Range { start, end } = memory.range();
        let is_refused = |range| {
            let result = collect(&memory, range, Select::System, &device, |_| Ok(()));
            result == Err(EINVAL)
        };
        assert!(is_refused(start..start));
        assert!(is_refused(start + 1..start + PAGE_SIZE));
        assert!(is_refused(start - PAGE_SIZE..start));
        assert!(is_refused(end - PAGE_SIZE..end + PAGE_SIZE));
        // More than there are buffers for.
        assert!(is_refused(start..end));
        assert!(!is_refused(start + PAGE_SIZE..end));
        Ok(())
    }
}
