// SPDX-License-Identifier: GPL-2.0-only

//! Device-private memory: struct pages for memory that no CPU can reach.
//!
//! C header: [`include/linux/memremap.h`](srctree/include/linux/memremap.h)

use crate::sys::{
    address_space::{
        mm::Vma, //
        zap_guard::has_huge_leaf,
    },
    bindings,
    device_memory::{
        kept_single::{
            KeepSingle,
            KeptSingle, //
        },
        memory_region::FreeRegion,
        owner::Owner,
        page::{
            Destination,
            PageRef,
            HUGE_ORDER,
            HUGE_PAGES, //
        }, //
    }, //
};
use core::{
    marker::PhantomData,
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    container_of,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::atomic::{
        ordering::{
            Full,
            Relaxed, //
        },
        Atomic, //
    },
    types::Opaque, //
};

/// Why a CPU fault on a device page could not be served.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultError {
    /// No memory for the destination; the kernel retries or kills.
    OutOfMemory,
    /// The device does not copy it: SIGBUS. A later access may succeed.
    Lost,
    /// There is no device. Only for those that know whether one will come back.
    NoDevice,
    /// The contents are lost for good: SIGBUS, as for memory that failed.
    Poisoned,
}

/// What the owner of device-private memory does for the kernel.
pub(crate) trait Operations: Send + Sync + Sized {
    /// A CPU touched a page of `memory`: migrate it back to system memory. The mmap lock is held for reading and must
    /// stay so; `current` need not be the owner of the address space. `Ok` also if the page
    /// could not be moved now: the CPU tries again.
    ///
    /// # Errors
    ///
    /// [`FaultError`].
    fn migrate_to_ram(memory: &PrivateMemory<Self>, fault: &Fault<'_>) -> Result<(), FaultError>;

    /// The last reference to the pages at `indices` is gone. Atomic context.
    fn pages_freed(&self, indices: Range<usize>);
}

/// A range of device-private memory.
///
/// Dropping it waits until every page is free.
///
/// # Invariants
///
/// `pgmap` is registered from initialisation to drop, and its owner is its own address.
///
/// # Examples
///
/// ```ignore
/// let memory = KBox::pin_init(
///     PrivateMemory::new(bytes >> PAGE_SHIFT, c"sample", SampleOperations::new()),
///     GFP_KERNEL,
/// )?;
/// // A page that its allocator says is free. Until a migration takes it, dropping it frees it.
/// let destination = memory.destination(index)?;
/// // The device knows it by its index.
/// let device_address = index << PAGE_SHIFT;
/// ```
#[pin_data(PinnedDrop)]
pub(crate) struct PrivateMemory<T: Operations> {
    #[pin]
    pgmap: Opaque<bindings::dev_pagemap>,
    ops: T,
    /// One bit for each page: set while the page is in use.
    in_use: KVVec<Atomic<u64>>,
    #[pin]
    kept_single: KeptSingle,
    first_pfn: usize,
    pages: usize,
    // Released after `pgmap`, which `PinnedDrop` unregisters first.
    _region: FreeRegion,
}

// SAFETY: `dev_pagemap` is only handed to the kernel, which may use it from any thread.
unsafe impl<T: Operations> Send for PrivateMemory<T> {}
// SAFETY: All `&self` methods are thread safe; `T` is `Sync`.
unsafe impl<T: Operations> Sync for PrivateMemory<T> {}

impl<T: Operations> PrivateMemory<T> {
    const OPS: bindings::dev_pagemap_ops = bindings::dev_pagemap_ops {
        folio_free: Some(Self::folio_free),
        migrate_to_ram: Some(Self::migrate_to_ram),
        memory_failure: None,
        // What the kernel does on its own suffices: nothing is attached to a page.
        folio_split: None,
    };

    /// Makes `pages` struct pages (64 bytes each).
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `ERANGE` if the physical address space has no room.
    pub(crate) fn new(pages: usize, name: &'static CStr, ops: T) -> impl PinInit<Self, Error>
    where
        T: 'static,
    {
        pin_init::pin_init_scope(move || {
            let bytes = pages.checked_mul(PAGE_SIZE).ok_or(EINVAL)?;
            let region = FreeRegion::new(bytes, name)?;
            let (start, end) = region.bounds();
            let words = pages.div_ceil(64);
            let mut in_use = KVVec::with_capacity(words, GFP_KERNEL)?;
            for _ in 0..words {
                in_use.push(Atomic::new(0u64), GFP_KERNEL)?;
            }

            Ok(try_pin_init!(Self {
                ops,
                in_use,
                kept_single <- KeptSingle::new(),
                first_pfn: (start >> PAGE_SHIFT) as usize,
                pages,
                _region: region,
                pgmap <- Opaque::try_ffi_init(move |slot: *mut bindings::dev_pagemap| {
                    // SAFETY: `slot` is valid for writes. `pgmap` is a field of `Self`, so the
                    // owner, its own address, is unique among all pagemaps.
                    unsafe {
                        slot.write(bindings::dev_pagemap::default());
                        (*slot).type_ = bindings::memory_type_MEMORY_DEVICE_PRIVATE;
                        (*slot).ops = &Self::OPS;
                        (*slot).owner = slot.cast();
                        (*slot).nr_range = 1;
                        *(*slot).__bindgen_anon_1.range.as_mut() =
                            bindings::range { start, end };
                    }
                    // SAFETY: `slot` is pinned and lives until `memunmap_pages` in drop.
                    let address = unsafe {
                        bindings::memremap_pages(slot, bindings::NUMA_NO_NODE)
                    };
                    kernel::error::from_err_ptr(address)?;
                    Owner::at(slot as usize).enlist();
                    Ok::<(), Error>(())
                }),
            }))
        })
    }

    /// The owner's operations.
    pub(crate) fn ops(&self) -> &T {
        &self.ops
    }

    /// What tells this memory from that of other devices.
    pub(crate) fn owner(&self) -> Owner {
        Owner::at(self.pgmap.get() as usize)
    }

    /// Whether `vma` has, in the place of a huge page wholly within `range`, a page of this memory or
    /// one that is being migrated.
    pub(crate) fn is_huge_in(&self, vma: &Vma<'_>, range: &Range<usize>) -> bool {
        let range = range.start.max(vma.start())..range.end.min(vma.end());
        has_huge_leaf(vma.mm(), range, self.owner())
    }

    /// The index of a page of this memory.
    pub(crate) fn index_of(&self, page: PageRef<'_>) -> Option<usize> {
        self.index_of_pfn(page.pfn())
    }

    /// The index of the page with a page frame number.
    pub(crate) fn index_of_pfn(&self, pfn: usize) -> Option<usize> {
        let index = pfn.checked_sub(self.first_pfn)?;
        (index < self.pages).then_some(index)
    }

    /// The page frame number of the page at `index`.
    pub(in crate::sys) fn pfn(&self, index: usize) -> Option<usize> {
        (index < self.pages).then_some(self.first_pfn + index)
    }

    /// WorkerSlots the free page at `index` into a destination.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such page, `EBUSY` if it is in use.
    pub(crate) fn destination(&self, index: usize) -> Result<Destination> {
        self.initialise(index, 0)
    }

    /// WorkerSlots the free pages from `index` on into a destination for a huge page.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are no such pages or `index` is not aligned, `EBUSY` if one is in use or is
    /// being migrated by its number.
    pub(crate) fn huge_destination(&self, index: usize) -> Result<Destination> {
        if index % HUGE_PAGES != 0 {
            return Err(EINVAL);
        }
        let end = index.checked_add(HUGE_PAGES).ok_or(EINVAL)?;
        (self.kept_single).make_huge(index..end, || self.initialise(index, HUGE_ORDER))
    }

    /// Keeps pages from being given out as part of a huge page while the result lives.
    ///
    /// # Errors
    ///
    /// `EBUSY`: too many pages are kept so.
    pub(in crate::sys) fn keep_single(&self, indices: Range<usize>) -> Result<KeepSingle<'_>> {
        self.kept_single.keep(indices)
    }

    fn initialise(&self, index: usize, order: u32) -> Result<Destination> {
        let pages = index..index + (1 << order);
        self.pfn(pages.end - 1).ok_or(EINVAL)?;
        let pfn = self.pfn(index).ok_or(EINVAL)?;
        if !self.mark(pages, true) {
            // The others are never used again rather than given out twice.
            return Err(EBUSY);
        }
        // SAFETY: The pagemap covers the pages, and the marks say that they were free, so there
        // is no reference to them. The call returns them locked with one reference.
        unsafe {
            let page = bindings::vhmm_pfn_to_page(pfn);
            bindings::vhmm_device_page_init(page, self.pgmap.get(), order);
            Ok(Destination::from_raw(
                NonNull::new_unchecked(page),
                order != 0,
            ))
        }
    }

    /// The page at `index`, if it is in use and not the tail of a huge page.
    pub(crate) fn page_in_use(&self, index: usize) -> Option<PageRef<'_>> {
        let pfn = self.pfn(index)?;
        let word = self.in_use.get(index / 64)?.load(Relaxed);
        if word & (1 << (index % 64)) == 0 {
            return None;
        }
        // SAFETY: The pagemap covers the page for the lifetime of `self`. Whether it is a tail may
        // change when a huge page is split; either answer is right then.
        unsafe {
            let page = bindings::vhmm_pfn_to_page(pfn);
            (!bindings::vhmm_page_is_tail(page))
                .then(|| PageRef::from_raw(NonNull::new_unchecked(page)))
        }
    }

    /// Sets or clears the marks of pages; false if one of them was so already.
    fn mark(&self, pages: Range<usize>, used: bool) -> bool {
        let Range { mut start, end } = pages;
        let mut all_changed = true;
        while start < end {
            let count = (end - start).min(64 - start % 64);
            let bits = (u64::MAX >> (64 - count)) << (start % 64);
            all_changed &= self.mark_in_word(start / 64, bits, used);
            start += count;
        }
        all_changed
    }

    /// Sets or clears bits of a word; false if one of them was so already, or there is no such word.
    fn mark_in_word(&self, index: usize, bits: u64, used: bool) -> bool {
        let Some(word) = self.in_use.get(index) else {
            return false;
        };
        let mut old = word.load(Relaxed);
        loop {
            let new = if used { old | bits } else { old & !bits };
            match word.cmpxchg(old, new, Full) {
                Ok(_) => return old ^ new == bits,
                Err(current) => old = current,
            }
        }
    }

    /// # Safety
    ///
    /// `page` must belong to a `PrivateMemory<T>` that outlives the result.
    unsafe fn from_page<'a>(page: *mut bindings::page) -> &'a Self {
        // SAFETY: The pagemap of the page is the field `pgmap` of a `Self`.
        unsafe {
            let pgmap = bindings::vhmm_page_pgmap(page);
            &*container_of!(Opaque::cast_from(pgmap), Self, pgmap)
        }
    }

    /// Called by the kernel with a folio whose last reference is gone.
    ///
    /// # Safety
    ///
    /// The folio must belong to the pagemap of a `Self`.
    unsafe extern "C" fn folio_free(folio: *mut bindings::folio) {
        let page = folio.cast::<bindings::page>();
        // SAFETY: The folio belongs to a pagemap that waits for all of its pages before it goes.
        let this = unsafe { Self::from_page(page) };
        // SAFETY: The kernel holds the page until this returns.
        let page = unsafe { PageRef::from_raw(NonNull::new_unchecked(page)) };
        if let Some(index) = this.index_of(page) {
            // SAFETY: The folio still has its order, and the caller has its last reference.
            let order = unsafe { bindings::vhmm_page_order(page.as_raw().as_ptr()) };
            let indices = index..index + (1 << order);
            this.mark(indices.clone(), false);
            this.ops.pages_freed(indices);
        }
    }

    /// Called by the kernel with a fault on a device page.
    ///
    /// # Safety
    ///
    /// `vmf` must be valid; its page must be referenced, locked, and of the pagemap of a `Self`;
    /// the mmap lock must be held.
    unsafe extern "C" fn migrate_to_ram(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The kernel passes a valid fault and holds a reference and the lock of its page.
        let this = unsafe { Self::from_page((*vmf).page) };
        // SAFETY: As above; the mmap lock is held for reading during the call.
        let fault = unsafe { Fault::from_raw(vmf) };
        match T::migrate_to_ram(this, &fault) {
            Ok(()) => 0,
            Err(FaultError::OutOfMemory) => bindings::vm_fault_reason_VM_FAULT_OOM,
            Err(FaultError::Lost | FaultError::NoDevice) => {
                bindings::vm_fault_reason_VM_FAULT_SIGBUS
            }
            Err(FaultError::Poisoned) => bindings::vm_fault_reason_VM_FAULT_HWPOISON,
        }
    }
}

#[pinned_drop]
impl<T: Operations> PinnedDrop for PrivateMemory<T> {
    fn drop(self: Pin<&mut Self>) {
        self.owner().delist();
        // SAFETY: By the type invariant the pagemap is registered. This waits for all pages.
        unsafe { bindings::memunmap_pages(self.pgmap.get()) };
    }
}

/// A CPU fault on a device page.
pub(crate) struct Fault<'a> {
    vmf: *mut bindings::vm_fault,
    vma: Vma<'a>,
    _lifetime: PhantomData<&'a ()>,
}

impl Fault<'_> {
    /// # Safety
    ///
    /// `vmf` must be valid, its page must be referenced and locked, and the mmap lock must be held
    /// for reading, all for the lifetime of the result.
    unsafe fn from_raw(vmf: *mut bindings::vm_fault) -> Self {
        Self {
            vmf,
            // SAFETY: By the safety requirement.
            vma: unsafe { Vma::from_raw((*vmf).__bindgen_anon_1.vma) },
            _lifetime: PhantomData,
        }
    }

    /// The mapping that the address is in.
    pub(crate) fn vma(&self) -> &Vma<'_> {
        &self.vma
    }

    /// The address, page aligned.
    pub(crate) fn address(&self) -> usize {
        // SAFETY: By the constructor's requirement.
        unsafe { (*self.vmf).__bindgen_anon_1.address }
    }

    /// Sleeps for about `milliseconds`, with the page unlocked, so that other tasks that want the page do not wait
    /// for this one. A signal that the task can take now ends the sleep. Returns false at once if the task must not wait:
    /// it is about to end, or is a thread of the kernel that looks at the memory of others, such as khugepaged.
    pub(crate) fn nap(&self, milliseconds: u32) -> bool {
        // SAFETY: Have no requirements; an address is compared.
        let must_not = unsafe {
            bindings::vhmm_task_is_dying()
                || (bindings::vhmm_task_is_of_kernel()
                    && !bindings::vhmm_task_uses(self.vma.mm().as_raw()))
        };
        if must_not {
            return false;
        }
        // SAFETY: By the constructor's requirement the page is referenced and locked; it is locked again before this
        // returns. As long as it is referenced it is not split, so it belongs to the same folio. The caller of
        // migrate_to_ram() only unlocks the page, and looks at nothing that the lock protects.
        unsafe {
            let page = (*self.vmf).page;
            let timeout = bindings::__msecs_to_jiffies(milliseconds) as c_long;
            let for_user = (*self.vmf).flags & bindings::fault_flag_FAULT_FLAG_USER != 0;
            bindings::vhmm_page_unlock(page);
            match for_user {
                // The signal is taken on the way back to the instruction that faulted.
                true => bindings::schedule_timeout_interruptible(timeout),
                false => bindings::schedule_timeout_killable(timeout),
            };
            bindings::vhmm_page_lock(page);
        }
        true
    }

    /// Whether the fault is on a huge page that is mapped as one.
    pub(crate) fn is_huge(&self) -> bool {
        // SAFETY: By the constructor's requirement. The pointer itself is all that is looked at.
        unsafe { (*self.vmf).pte.is_null() }
    }

    /// The device page.
    pub(crate) fn page(&self) -> PageRef<'_> {
        // SAFETY: By the constructor's requirement the page is not null and stays.
        unsafe { PageRef::from_raw(NonNull::new_unchecked((*self.vmf).page)) }
    }
}

#[kunit_tests(virtio_hmm_pagemap)]
mod tests {
    use super::*;
    use crate::sys::services::kunit::device;

    const PAGES: usize = 2 * HUGE_PAGES;

    #[test]
    fn an_owner_is_known_as_long_as_it_lives() -> Result {
        let (one, _) = device(PAGES)?;
        let (other, _) = device(PAGES)?;
        let owner = other.owner();
        assert!(one.owner() != owner);
        assert!(Owner::all().any(|known| known == owner));
        drop(other);
        assert!(!Owner::all().any(|known| known == owner));
        Ok(())
    }

    #[test]
    fn a_page_is_given_out_once() -> Result {
        let (memory, heard) = device(PAGES)?;
        assert!(memory.page_in_use(3).is_none());
        let page = memory.destination(3)?;
        assert!(!page.is_huge());
        let in_use = memory.page_in_use(3).and_then(|page| memory.index_of(page));
        assert_eq!(in_use, Some(3));
        assert_eq!(memory.destination(3).err(), Some(EBUSY));
        assert_eq!(heard.freed(), 0);
        drop(page);
        assert_eq!(heard.freed(), 1);
        assert!(memory.page_in_use(3).is_none());
        assert!(memory.destination(3).is_ok());
        Ok(())
    }

    #[test]
    fn pages_that_are_kept_single_do_not_become_huge() -> Result {
        let (memory, _) = device(PAGES)?;
        let last = memory.keep_single(HUGE_PAGES - 1..HUGE_PAGES)?;
        assert_eq!(memory.huge_destination(0).err(), Some(EBUSY));
        assert!(memory.huge_destination(HUGE_PAGES).is_ok());
        // The refused one is as free as it was.
        assert!(memory.destination(0).is_ok());
        drop(last);
        assert!(memory.huge_destination(0)?.is_huge());
        Ok(())
    }

    #[test]
    fn a_huge_page_is_given_out_as_one() -> Result {
        let (memory, heard) = device(PAGES)?;
        let page = memory.huge_destination(HUGE_PAGES)?;
        assert!(page.is_huge());
        let head = memory.page_in_use(HUGE_PAGES);
        assert!(head.is_some_and(PageRef::is_large));
        // The others are parts of it.
        assert!(memory.page_in_use(HUGE_PAGES + 1).is_none());
        assert_eq!(memory.destination(PAGES - 1).err(), Some(EBUSY));
        drop(page);
        assert_eq!(heard.freed(), HUGE_PAGES);
        assert!(memory.destination(PAGES - 1).is_ok());
        Ok(())
    }

    #[test]
    fn what_is_not_there_is_not_given_out() -> Result {
        let (memory, _) = device(PAGES)?;
        assert_eq!(memory.destination(PAGES).err(), Some(EINVAL));
        assert_eq!(memory.huge_destination(PAGES).err(), Some(EINVAL));
        assert_eq!(memory.huge_destination(1).err(), Some(EINVAL));
        assert!(memory.page_in_use(PAGES).is_none());
        let pfn = memory.pfn(0).ok_or(EINVAL)?;
        assert_eq!(memory.index_of_pfn(pfn + PAGES - 1), Some(PAGES - 1));
        assert_eq!(memory.index_of_pfn(pfn + PAGES), None);
        assert_eq!(memory.index_of_pfn(pfn - 1), None);
        Ok(())
    }
}
