// SPDX-License-Identifier: GPL-2.0-only

//! Watches an address space for what must not be forgotten: that ranges are unmapped, and that it
//! ends. Tasks that zap PTEs can be made to wait.
//!
//! C header: [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h)

use crate::sys::{
    address_space::{
        exclusive::Exclusive,
        interval,
        mmap_lock::MmapLockOfCaller,
        tracking::{
            self,
            KeptTables, //
        }, //
        zap_guard::{
            NotHeld,
            OwnZaps, //
            ZapGuard,
            ZapGuards,
        },
    },
    bindings,
    device_memory::{
        owner::Owner,
        placement::Placement, //
    }, //
};
use core::ops::Range;
use kernel::{
    container_of,
    mm::{
        Mm,
        MmWithUser, //
    },
    prelude::*,
    types::Opaque, //
};

/// What hears of an address space.
///
/// The methods may be called from reclaim, and must not sleep or allocate.
pub(crate) trait Watcher: Send + Sync {
    /// `range` is being unmapped. What is mapped there later is something else.
    fn unmapped(&self, range: Range<usize>);

    /// The address space ends. Nothing will be heard of it any more.
    fn ended(&self);

    /// The kernel is about to write-protect or to move the pages of a range, which it does wrong for
    /// device pages. It waits for the return of this method, which may sleep, but not allocate so that
    /// memory is reclaimed. Pages that come to system memory go to `placement`.
    fn pages_wanted(&self, tables: KeptTables<'_>, placement: Option<Placement>);
}

/// A watcher of an address space, which may end meanwhile; its `mm_struct` stays.
///
/// Dropping it may sleep.
///
/// # Invariants
///
/// `notifier` is inserted from initialisation to drop.
///
/// # Examples
///
/// ```ignore
/// let mm = current!().mm().map(ARef::from).ok_or(ESRCH)?;
/// let watch = KBox::pin_init(Watch::new(&mm, pin_init!(Regions::new())), GFP_KERNEL)?;
/// assert!(watch.is_of(&mm));
/// ```
#[pin_data(PinnedDrop)]
pub(crate) struct Watch<W: Watcher> {
    #[pin]
    notifier: Opaque<bindings::mmu_interval_notifier>,
    #[pin]
    watcher: W,
    #[pin]
    holds: ZapGuards,
}

/// How often a hold is tried to begin.
const TRIES: usize = 8;

// SAFETY: A notifier may be removed on any thread, and `W` may be sent there.
unsafe impl<W: Watcher> Send for Watch<W> {}
// SAFETY: Through a shared reference only `W` and a constant field of the notifier are accessible.
unsafe impl<W: Watcher> Sync for Watch<W> {}

impl<W: Watcher> Watch<W> {
    const OPS: bindings::mmu_interval_notifier_ops = bindings::mmu_interval_notifier_ops {
        invalidate: Some(Self::invalidate),
        invalidate_start: None,
        invalidate_finish: None,
    };

    /// Begins to watch. The first notifier of an address space takes the mmap lock for writing, so the
    /// caller must not hold it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `ERESTARTSYS` if a signal came.
    pub(crate) fn new<'a>(
        mm: &'a MmWithUser,
        watcher: impl PinInit<W, Error> + 'a,
    ) -> impl PinInit<Self, Error> + 'a
    where
        W: 'a,
    {
        try_pin_init!(Self {
            // What is called comes before what calls it.
            watcher <- watcher,
            holds <- ZapGuards::new(),
            notifier <- Opaque::try_ffi_init(move |slot: *mut bindings::mmu_interval_notifier| {
                // SAFETY: `slot` is pinned until drop removes it, and so is the watcher, which goes
                // after that.
                unsafe { interval::insert(slot, mm, &Self::OPS) }
            }),
        })
    }

    /// Whether this watches `mm`. A new address space is never mistaken for an old one, since the
    /// old one's `mm_struct` stays as long as it is watched.
    pub(crate) fn is_of(&self, mm: &MmWithUser) -> bool {
        // SAFETY: By the type invariant the notifier was inserted, which set `mm` for good.
        core::ptr::eq(unsafe { (*self.notifier.get()).mm }, mm.as_raw())
    }

    /// Makes tasks that are to clear entries of huge device pages of `owner` wait until the hold of
    /// the range is dropped. Waits for the tasks that are clearing any of the address space now;
    /// `None` if there are always some, or too many holds, or if another address space is watched.
    ///
    /// The caller has no other hold, and no lock of any page: the invalidations that this waits for
    /// include those in which a migration waits for a page (`migrate_vma_split_folio()` takes the
    /// lock of a folio inside of its invalidation). A CPU fault calls [`Self::try_hold`].
    pub(crate) fn hold<'a>(&'a self, of: Exclusive<'a>, owner: Owner) -> Option<ZapGuard<'a>> {
        kernel::task::might_sleep();
        let notifier = self.notifier.get();
        let (mm, range) = (self.mm(), of.range());
        if !self.is_of(of.mm()) {
            return None;
        }
        for _ in 0..TRIES {
            // SAFETY: By the type invariant.
            let seq = unsafe { bindings::mmu_interval_read_begin(notifier) };
            let is_noted = || {
                // SAFETY: As above. `ZapGuards` calls this and the function that notes with its
                // lock held.
                unsafe { bindings::vhmm_notifier_has_changed(notifier, seq) }
            };
            match self.holds.hold(mm, range.clone(), owner, is_noted) {
                Ok(hold) => return Some(hold),
                Err(error) if error == EAGAIN => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// As [`Self::hold`], but waits for nothing. The caller may have the lock of a page.
    ///
    /// # Errors
    ///
    /// [`NotHeld`].
    pub(crate) fn try_hold<'a>(
        &'a self,
        of: Exclusive<'a>,
        owner: Owner,
    ) -> Result<ZapGuard<'a>, NotHeld> {
        if !self.is_of(of.mm()) {
            return Err(NotHeld::Refused);
        }
        self.holds.try_hold(self.mm(), of.range(), owner)
    }

    /// Waits until no task clears entries of the address space, so that [`Self::try_hold`] may
    /// succeed; gives up if there are always some. The caller has no lock of a page, and no hold.
    pub(crate) fn settle(&self) {
        kernel::task::might_sleep();
        let notifier = self.notifier.get();
        for _ in 0..TRIES {
            // SAFETY: By the type invariant.
            let seq = unsafe { bindings::mmu_interval_read_begin(notifier) };
            let is_settled = self.holds.settle(|| {
                // SAFETY: As above. `ZapGuards` calls this with its lock held, as it does the
                // function that notes.
                unsafe { bindings::vhmm_notifier_has_changed(notifier, seq) }
            });
            if is_settled {
                return;
            }
        }
    }

    /// The watcher.
    pub(crate) fn watcher(&self) -> &W {
        &self.watcher
    }

    /// Called by the kernel when a range of the address space changes.
    ///
    /// # Safety
    ///
    /// `notifier` must be the field of a `Self` and inserted; `range` must be valid.
    unsafe extern "C" fn invalidate(
        notifier: *mut bindings::mmu_interval_notifier,
        range: *const bindings::mmu_notifier_range,
        seq: usize,
    ) -> bool {
        // SAFETY: The notifier is that of a `Self`, which lives until the notifier is removed,
        // and that waits for this function.
        let this = unsafe { &*container_of!(Opaque::cast_from(notifier), Self, notifier) };
        // SAFETY: The kernel passes a valid range.
        let (event, start, end) = unsafe { ((*range).event, (*range).start, (*range).end) };
        match event {
            bindings::mmu_notifier_event_MMU_NOTIFY_UNMAP => this.watcher.unmapped(start..end),
            bindings::mmu_notifier_event_MMU_NOTIFY_RELEASE => this.watcher.ended(),
            bindings::mmu_notifier_event_MMU_NOTIFY_CLEAR => {
                // SAFETY: As above.
                let may_sleep = unsafe { bindings::vhmm_notifier_range_may_sleep(range) };
                if may_sleep && tracking::task_moves_pages() {
                    // SAFETY: The kernel moves pages with the mmap lock held, which keeps the tables.
                    let tables = unsafe { KeptTables::new(this.mm(), start..end) };
                    this.watcher.pages_wanted(tables, None);
                }
                return this.clear(start..end, may_sleep, seq);
            }
            bindings::mmu_notifier_event_MMU_NOTIFY_SOFT_DIRTY
            | bindings::mmu_notifier_event_MMU_NOTIFY_PROTECTION_VMA => {
                // SAFETY: As above.
                if unsafe { bindings::vhmm_notifier_range_may_sleep(range) } {
                    // SAFETY: The kernel writes such entries with the mmap lock held.
                    unsafe { this.protect(start..end) };
                }
            }
            bindings::mmu_notifier_event_MMU_NOTIFY_PROTECTION_PAGE => {
                // By a fork. The other cause is writeback of a file, without the mmap lock.
                // SAFETY: As above.
                let may_sleep = unsafe { bindings::vhmm_notifier_range_may_sleep(range) };
                if may_sleep && tracking::task_locked_for_writing(this.mm()) {
                    // SAFETY: The current thread has the mmap lock, as was just asked.
                    unsafe { this.protect(start..end) };
                }
            }
            _ => {}
        }
        true
    }

    /// Deals with entries that are about to be write-protected.
    ///
    /// # Safety
    ///
    /// The kernel must have called with the mmap lock of the address space held.
    unsafe fn protect(&self, range: Range<usize>) {
        // SAFETY: A task that has the mmap lock is a user of the address space.
        let mm = unsafe { MmWithUser::from_raw((*self.notifier.get()).mm) };
        // SAFETY: By the safety requirement.
        let guard = unsafe { MmapLockOfCaller::new(mm) };
        for (part, placement) in tracking::TrackedParts::new(&guard, range) {
            // SAFETY: By the safety requirement the mmap lock is held, which keeps the tables.
            let tables = unsafe { KeptTables::new(self.mm(), part) };
            self.watcher.pages_wanted(tables, placement);
        }
    }

    /// Deals with entries that are about to be cleared.
    fn clear(&self, range: Range<usize>, may_sleep: bool, seq: usize) -> bool {
        if OwnZaps::are_made() {
            return true;
        }
        let note = || {
            // SAFETY: The notifier is inserted, and the kernel called it with this number.
            unsafe { bindings::vhmm_notifier_set_seq(self.notifier.get(), seq) }
        };
        self.holds.clear(self.mm(), range, may_sleep, note)
    }

    /// The address space, which may have ended.
    fn mm(&self) -> &Mm {
        // SAFETY: By the type invariant the notifier is inserted, which set `mm` for good and holds
        // a reference to it.
        unsafe { Mm::from_raw((*self.notifier.get()).mm) }
    }
}

#[pinned_drop]
impl<W: Watcher> PinnedDrop for Watch<W> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. The caller holds no lock that the watcher takes, since
        // a lock guard cannot outlive what it protects.
        unsafe { bindings::mmu_interval_notifier_remove(self.notifier.get()) };
    }
}

#[kunit_tests(virtio_hmm_watch)]
mod tests {
    use super::*;
    use crate::sys::{
        address_space::{
            mm::Vma,
            mmap_lock::MmapReadGuard,
            process::{
                ProcMount, //
                Process,
            }, //
        },
        services::kunit::TestMemory, //
    };
    use kernel::sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    };

    /// Where and how much was unmapped last.
    struct Last {
        start: Atomic<usize>,
        len: Atomic<usize>,
        wanted: Atomic<usize>,
    }

    impl Watcher for Last {
        fn unmapped(&self, range: Range<usize>) {
            self.start.store(range.start, Relaxed);
            self.len.store(range.len(), Relaxed);
        }

        fn ended(&self) {}

        fn pages_wanted(&self, tables: KeptTables<'_>, _placement: Option<Placement>) {
            self.wanted.store(tables.len(), Relaxed);
        }
    }

    fn watch(mm: &MmWithUser) -> Result<Pin<KBox<Watch<Last>>>> {
        let last = Last {
            start: Atomic::new(0),
            len: Atomic::new(0),
            wanted: Atomic::new(0),
        };
        KBox::pin_init(Watch::new(mm, Ok(last)), GFP_KERNEL)
    }

    #[test]
    fn what_is_unmapped_is_heard_of() -> Result {
        let memory = TestMemory::new(3)?;
        let (mm, range) = (memory.mm()?, memory.range());
        let watch = watch(&mm)?;
        memory.fill()?;
        assert_eq!(watch.watcher().len.load(Relaxed), 0);
        memory.unmap()?;
        assert_eq!(watch.watcher().start.load(Relaxed), range.start);
        assert_eq!(watch.watcher().len.load(Relaxed), range.len());
        Ok(())
    }

    #[test]
    fn one_address_space_is_watched() -> Result {
        let mm = TestMemory::new(1)?.mm()?;
        let watch = watch(&mm)?;
        assert!(watch.is_of(&mm));
        let other = Process::find(&ProcMount::new()?, 1)?;
        assert!(!watch.is_of(other.mm()));
        Ok(())
    }

    #[test]
    fn nobody_waits_for_a_hold_of_its_own() -> Result {
        let memory = TestMemory::new(1)?;
        let mm = memory.mm()?;
        let watch = watch(&mm)?;
        let guard = MmapReadGuard::lock(&mm, || false)?;
        let vma = Vma::find(&guard, memory.range().start).ok_or(EFAULT)?;
        let all = Exclusive::of(&vma, memory.range()).ok_or(EFAULT)?;
        let hold = watch.hold(all, Owner::nobody());
        assert!(hold.as_ref().is_some_and(|hold| !hold.is_contended()));
        assert!(watch.holds.clear(watch.mm(), memory.range(), false, || {}));
        Ok(())
    }

    #[test]
    fn what_is_settled_can_be_held_without_waiting() -> Result {
        let memory = TestMemory::new(1)?;
        let mm = memory.mm()?;
        let watch = watch(&mm)?;
        let guard = MmapReadGuard::lock(&mm, || false)?;
        let vma = Vma::find(&guard, memory.range().start).ok_or(EFAULT)?;
        let all = || Exclusive::of(&vma, memory.range()).ok_or(EFAULT);
        assert!(watch.try_hold(all()?, Owner::nobody()).is_ok());
        assert!(watch.holds.clear(watch.mm(), memory.range(), false, || {}));
        let refused = watch.try_hold(all()?, Owner::nobody()).map(drop);
        assert!(refused == Err(NotHeld::Unsettled));
        watch.settle();
        assert!(watch.try_hold(all()?, Owner::nobody()).is_ok());
        Ok(())
    }
}
