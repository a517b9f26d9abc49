// SPDX-License-Identifier: GPL-2.0-only

//! A device's own view of an address space, which follows its page tables.
//!
//! The user has a lock of its own, the *update lock*. It programs its device only with that lock held and
//! after [`Mirror::has_changed`] said no, and [`Mirrored::invalidate`] takes the same lock. Nothing
//! may allocate with it, or wait for a task that does: memory reclaim invalidates, too.
//!
//! ```text
//! begin -> fault in -> update lock -> has_changed? -> program the device -> unlock
//! ```
//!
//! C headers: [`include/linux/hmm.h`](srctree/include/linux/hmm.h),
//! [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h)
//!
//! # Lock order
//!
//! mmap lock, lock of a page > update lock.

mod part;
mod seen;

pub(crate) use self::{
    part::MirrorPart,
    seen::{
        Seen,
        SeenPage,
        Wanted, //
    }, //
};
use crate::sys::{
    address_space::{
        hmm_entries::mend,
        interval,
        locked::MmapLocked, //
    },
    bindings,
    device_memory::owner::Owner, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    container_of,
    error::{
        from_err_ptr,
        to_result, //
    },
    mm::{
        Mm,
        MmWithUser, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    types::Opaque, //
};

/// Why a device must not access a range any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The address space ends.
    Release,
    /// The range is unmapped.
    Unmap,
    /// This device is about to get exclusive access to a page ([`Mirror::make_exclusive`]). It may go on
    /// accessing the page as it did.
    OwnExclusive,
    /// Anything else: the pages, or what may be done with them, change.
    Change,
}

/// An invalidation that is being dealt with.
pub(crate) struct Invalidation<'a> {
    /// The addresses.
    pub(crate) range: Range<usize>,
    /// Why.
    pub(crate) cause: Cause,
    /// Whether the caller may sleep. If not, it must not wait for the update lock, or for the device.
    pub(crate) may_sleep: bool,
    notifier: &'a Opaque<bindings::mmu_interval_notifier>,
    seq: usize,
}

impl Invalidation<'_> {
    /// Lets [`Mirror::has_changed`] say yes to everything that was seen before. The caller holds the
    /// update lock.
    pub(crate) fn note(&self) {
        // SAFETY: The notifier is inserted, and the kernel called it with this number.
        unsafe { bindings::vhmm_notifier_set_seq(self.notifier.get(), self.seq) };
    }

    /// Whether another invalidation has been noted that may still be under way. The caller holds the update
    /// lock.
    pub(crate) fn is_amid_others(&self) -> bool {
        // SAFETY: The notifier is inserted. Its number is written with the update lock held.
        let noted = unsafe { (&raw const (*self.notifier.get()).invalidate_seq).read_volatile() };
        noted == self.seq
    }
}

/// What is told of changes.
pub(crate) trait Mirrored: Send + Sync {
    /// Takes the range away from the device, under the update lock, and calls [`Invalidation::note`]. When
    /// it returns the device does not access the range. It may be called from reclaim, and must not
    /// allocate. Returns false, having done nothing, if it would have to sleep and may not.
    fn invalidate(&self, invalidation: &Invalidation<'_>) -> bool;

    /// Whose device pages are seen as such.
    fn owner(&self) -> Owner;
}

/// What was seen of an address space when.
#[derive(Clone, Copy)]
pub(crate) struct Sequence(usize);

/// A page with exclusive access of the device until a CPU touches it. It stays locked until this is
/// dropped.
///
/// # Invariants
///
/// The page is locked, and this owns a reference to it.
struct ExclusivePage(NonNull<bindings::page>);

impl Drop for ExclusivePage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe {
            bindings::vhmm_page_unlock(self.0.as_ptr());
            bindings::vhmm_page_put(self.0.as_ptr());
        }
    }
}

/// A mirror of an address space, which may end meanwhile; its `mm_struct` stays.
///
/// Dropping it may sleep, and must not happen with the update lock held.
///
/// # Invariants
///
/// `notifier` is inserted from initialisation to drop.
///
/// # Examples
///
/// ```ignore
/// let sequence = mirror.begin();
/// let guard = MmapReadGuard::lock(&mm, || false)?;
/// mirror.fault(&guard, range, Wanted::Read, sequence, &mut entries)?;
/// drop(guard);
/// let mut device = mirror.mirrored().device.lock();
/// if mirror.has_changed(sequence) {
///     return Err(EAGAIN);
/// }
/// for (page, seen) in entries.iter().map(Seen::of).enumerate() {
///     device.map(page, seen);
/// }
/// ```
#[pin_data(PinnedDrop)]
pub(crate) struct Mirror<M: Mirrored> {
    #[pin]
    notifier: Opaque<bindings::mmu_interval_notifier>,
    #[pin]
    mirrored: M,
}

// SAFETY: A notifier may be removed on any thread, and `M` may be sent there.
unsafe impl<M: Mirrored> Send for Mirror<M> {}
// SAFETY: The kernel guards the notifier; `M` is `Sync`.
unsafe impl<M: Mirrored> Sync for Mirror<M> {}

impl<M: Mirrored> Mirror<M> {
    const OPS: bindings::mmu_interval_notifier_ops = bindings::mmu_interval_notifier_ops {
        invalidate: Some(Self::invalidate),
        invalidate_start: None,
        invalidate_finish: None,
    };

    /// Begins to follow `mm`. The first notifier of an address space takes the mmap lock for writing, so
    /// the caller must not hold it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `ERESTARTSYS` if a signal came; those of `mirrored`.
    pub(crate) fn new<'a>(
        mm: &'a MmWithUser,
        mirrored: impl PinInit<M, Error> + 'a,
    ) -> impl PinInit<Self, Error> + 'a
    where
        M: 'a,
    {
        try_pin_init!(Self {
            // What is called comes before what calls it.
            mirrored <- mirrored,
            notifier <- Opaque::try_ffi_init(move |slot: *mut bindings::mmu_interval_notifier| {
                // SAFETY: `slot` is pinned until drop removes it, and so is what it calls, which goes
                // after that.
                unsafe { interval::insert(slot, mm, &Self::OPS) }
            }),
        })
    }

    /// What is told of changes.
    pub(crate) fn mirrored(&self) -> &M {
        &self.mirrored
    }

    /// The address space, which may have ended.
    pub(crate) fn mm(&self) -> &Mm {
        // SAFETY: By the type invariant the notifier is inserted, which set `mm` for good and holds
        // a reference to it.
        unsafe { Mm::from_raw((*self.notifier.get()).mm) }
    }

    /// Waits until no invalidation is under way. What is seen from now on is as new as the result.
    pub(crate) fn begin(&self) -> Sequence {
        // SAFETY: By the type invariant.
        unsafe { begin(&self.notifier) }
    }

    /// Whether what was seen since `sequence` may not be so any more. The caller holds the update lock,
    /// and as long as it does the answer no stays true.
    pub(crate) fn has_changed(&self, sequence: Sequence) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_notifier_has_changed(self.notifier.get(), sequence.0) }
    }

    /// Looks at every page of `range`, and faults those in that are wanted: `entries` tells which
    /// ([`Wanted`]), and gets what was seen ([`Seen`]), an element a page.
    ///
    /// # Errors
    ///
    /// `EBUSY` something changed since `sequence`, `EFAULT` a wanted page is not mapped or cannot be had,
    /// `EPERM` it must not be written, `ENOMEM`; `EINVAL` the lock is of another address space,
    /// or the range is not page aligned or longer than `entries`.
    pub(crate) fn fault(
        &self,
        guard: &dyn MmapLocked,
        range: Range<usize>,
        sequence: Sequence,
        entries: &mut [usize],
    ) -> Result {
        // SAFETY: By the type invariant.
        unsafe { self.fault_with(&self.notifier, guard, range, sequence, entries) }
    }

    /// As [`Mirror::fault`], where `sequence` is of `notifier`.
    ///
    /// # Safety
    ///
    /// `notifier` must be inserted, for this address space.
    unsafe fn fault_with(
        &self,
        notifier: &Opaque<bindings::mmu_interval_notifier>,
        guard: &dyn MmapLocked,
        range: Range<usize>,
        sequence: Sequence,
        entries: &mut [usize],
    ) -> Result {
        if guard.mm().as_raw() != self.mm().as_raw() {
            return Err(EINVAL);
        }
        let mut query = self.query(range, entries)?;
        query.notifier = notifier.get();
        query.notifier_seq = sequence.0;
        // SAFETY: `guard` holds the mmap lock of the notifier's address space, and `entries` has room for
        // the range.
        to_result(unsafe { bindings::hmm_range_fault(&mut query) })?;
        mend(query.start, entries);
        Ok(())
    }

    /// As [`Mirror::fault`], but takes the mmap lock itself and gives it up where a fault needs that, as
    /// one that userfaultfd answers. So it waits for whatever the process does, until the calling thread
    /// is killed. The caller keeps the address space from ending, and holds no mmap lock.
    ///
    /// # Errors
    ///
    /// As there, but never `EBUSY`; `EINTR` the thread was killed.
    pub(crate) fn fault_unlocked(
        &self,
        mm: &MmWithUser,
        range: Range<usize>,
        entries: &mut [usize],
    ) -> Result<Sequence> {
        if mm.as_raw() != self.mm().as_raw() {
            return Err(EINVAL);
        }
        let mut query = self.query(range, entries)?;
        let start = query.start;
        // SAFETY: The address space has users, since `mm` is one, and `entries` has room for the range.
        to_result(unsafe { bindings::hmm_range_fault_unlocked_timeout(&mut query, 0) })?;
        mend(start, entries);
        Ok(Sequence(query.notifier_seq))
    }

    fn query(&self, range: Range<usize>, entries: &mut [usize]) -> Result<bindings::hmm_range> {
        let is_aligned = (range.start | range.end) % PAGE_SIZE == 0;
        let bytes = range.end.checked_sub(range.start).ok_or(EINVAL)?;
        if !is_aligned || bytes == 0 || bytes >> PAGE_SHIFT > entries.len() {
            return Err(EINVAL);
        }
        Ok(bindings::hmm_range {
            notifier: self.notifier.get(),
            notifier_seq: 0,
            start: range.start,
            end: range.end,
            hmm_pfns: entries.as_mut_ptr(),
            default_flags: 0,
            // Each entry says what is wanted.
            pfn_flags_mask: seen::REQUESTS,
            dev_private_owner: self.mirrored.owner().as_raw(),
        })
    }

    /// Gives the device exclusive access to the page at `address` of private memory that may be written,
    /// until a CPU touches the page, which is announced as a change. `then` programs the device, while the
    /// page is locked. Calls [`Mirrored::invalidate`] with [`Cause::OwnExclusive`] first, on this
    /// thread.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` the memory is not private, `EFAULT` it is not mapped, `EPERM`, `ENOMEM`, `EINTR`;
    /// those of `then`.
    pub(crate) fn make_exclusive<R>(
        &self,
        guard: &dyn MmapLocked,
        address: usize,
        then: impl FnOnce(SeenPage) -> Result<R>,
    ) -> Result<R> {
        if guard.mm().as_raw() != self.mm().as_raw() {
            return Err(EINVAL);
        }
        let owner = self.mirrored.owner().as_raw();
        // SAFETY: `guard` holds the mmap lock of the address space.
        let page = from_err_ptr(unsafe {
            bindings::vhmm_page_make_exclusive(self.mm().as_raw(), address, owner)
        })?;
        // INVARIANT: The kernel returns the page locked and with a reference.
        let page = ExclusivePage(NonNull::new(page).ok_or(EFAULT)?);
        // SAFETY: The page is valid.
        let pfn = unsafe { bindings::vhmm_page_to_pfn(page.0.as_ptr()) };
        then(SeenPage::exclusive(pfn))
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
        let invalidation = unsafe { Invalidation::new(this, &this.notifier, range, seq) };
        this.mirrored.invalidate(&invalidation)
    }
}

impl<'a> Invalidation<'a> {
    /// What the kernel tells `notifier`, one of those of `mirror`.
    ///
    /// # Safety
    ///
    /// `range` must be valid.
    unsafe fn new<M: Mirrored>(
        mirror: &Mirror<M>,
        notifier: &'a Opaque<bindings::mmu_interval_notifier>,
        range: *const bindings::mmu_notifier_range,
        seq: usize,
    ) -> Self {
        // SAFETY: As the caller promises.
        let (event, start, end, owner, may_sleep) = unsafe {
            (
                (*range).event,
                (*range).start,
                (*range).end,
                (*range).owner,
                bindings::vhmm_notifier_range_may_sleep(range),
            )
        };
        let cause = match event {
            bindings::mmu_notifier_event_MMU_NOTIFY_RELEASE => Cause::Release,
            bindings::mmu_notifier_event_MMU_NOTIFY_UNMAP => Cause::Unmap,
            bindings::mmu_notifier_event_MMU_NOTIFY_EXCLUSIVE
                if owner == mirror.mirrored.owner().as_raw() =>
            {
                Cause::OwnExclusive
            }
            _ => Cause::Change,
        };
        Self {
            range: start..end,
            cause,
            may_sleep,
            notifier,
            seq,
        }
    }
}

/// As [`Mirror::begin`].
///
/// # Safety
///
/// `notifier` must be inserted.
unsafe fn begin(notifier: &Opaque<bindings::mmu_interval_notifier>) -> Sequence {
    kernel::task::might_sleep();
    // SAFETY: As the caller promises.
    Sequence(unsafe { bindings::mmu_interval_read_begin(notifier.get()) })
}

#[pinned_drop]
impl<M: Mirrored> PinnedDrop for Mirror<M> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. The caller holds no lock that `invalidate` takes.
        unsafe { bindings::mmu_interval_notifier_remove(self.notifier.get()) };
    }
}

#[kunit_tests(virtio_hmm_mirror)]
mod tests {
    use super::*;
    use crate::sys::{
        address_space::mmap_lock::MmapReadGuard,
        services::kunit::TestMemory, //
    };
    use kernel::{
        new_mutex,
        sync::Mutex, //
    };

    /// The first page of the range that was invalidated last, and how often one was.
    #[pin_data]
    struct Heard {
        #[pin]
        last: Mutex<(usize, usize)>,
    }

    impl Mirrored for Heard {
        fn invalidate(&self, invalidation: &Invalidation<'_>) -> bool {
            let mut last = self.last.lock();
            if !matches!(invalidation.cause, Cause::OwnExclusive) {
                invalidation.note();
                *last = (invalidation.range.start, last.1 + 1);
            }
            true
        }

        fn owner(&self) -> Owner {
            Owner::nobody()
        }
    }

    fn mirror(mm: &MmWithUser) -> Result<Pin<KBox<Mirror<Heard>>>> {
        let heard = try_pin_init!(Heard {
            last <- new_mutex!((0, 0), "Heard::last"),
        }? Error);
        KBox::pin_init(Mirror::new(mm, heard), GFP_KERNEL)
    }

    #[test]
    fn what_is_wanted_is_faulted_in() -> Result {
        let memory = TestMemory::new(3)?;
        let (mm, range) = (memory.mm()?, memory.range());
        let mirror = mirror(&mm)?;
        let one = range.start..range.start + PAGE_SIZE;
        let (mut first, mut all) = ([Wanted::Write.entry()], [0; 3]);
        let too_few = {
            let guard = MmapReadGuard::lock(&mm, || false)?;
            let sequence = mirror.begin();
            mirror.fault(&guard, one, sequence, &mut first)?;
            mirror.fault(&guard, range.clone(), sequence, &mut all)?;
            mirror.fault(&guard, range, sequence, &mut first)
        };
        // With the lock a failed assertion would leave it locked.
        assert!(matches!(Seen::of(first[0]), Seen::Page(page) if page.is_writable()));
        assert!(Seen::of(all[0]) == Seen::of(first[0]));
        assert!(matches!(Seen::of(all[1]), Seen::Nothing));
        assert!(matches!(Seen::of(all[2]), Seen::Nothing));
        assert!(too_few == Err(EINVAL));
        Ok(())
    }

    #[test]
    fn what_is_unmapped_has_changed() -> Result {
        let memory = TestMemory::new(2)?;
        let mm = memory.mm()?;
        let mirror = mirror(&mm)?;
        memory.fill()?;
        let sequence = mirror.begin();
        {
            let _update = mirror.mirrored().last.lock();
            assert!(!mirror.has_changed(sequence));
        }
        let start = memory.range().start;
        memory.unmap()?;
        let last = mirror.mirrored().last.lock();
        assert_eq!(last.0, start);
        assert!(mirror.has_changed(sequence));
        Ok(())
    }

    #[test]
    fn a_part_has_changed_only_by_changes_of_its_own() -> Result {
        let (memory, other) = (TestMemory::new(2)?, TestMemory::new(1)?);
        let (mm, range) = (memory.mm()?, memory.range());
        let mirror = mirror(&mm)?;
        let part = KBox::pin_init(mirror.part(&mm, range.clone()), GFP_KERNEL)?;
        memory.fill()?;
        other.fill()?;
        let (all, own) = (mirror.begin(), part.begin());
        let mut entries = [Wanted::Read.entry(); 2];
        let beyond = range.start..range.end + PAGE_SIZE;
        let (seen, too_far) = {
            let guard = MmapReadGuard::lock(&mm, || false)?;
            (
                part.fault(&guard, range, own, &mut entries),
                part.fault(&guard, beyond, own, &mut [0; 3]),
            )
        };
        assert!(seen.is_ok() && too_far == Err(EINVAL));
        assert!(matches!(Seen::of(entries[1]), Seen::Page(_)));
        let heard = mirror.mirrored().last.lock().1;
        other.unmap()?;
        assert!(mirror.has_changed(all) && !part.has_changed(own));
        assert_eq!(mirror.mirrored().last.lock().1, heard + 1);
        memory.unmap()?;
        assert!(part.has_changed(own));
        // Both notifiers have told of it.
        assert_eq!(mirror.mirrored().last.lock().1, heard + 3);
        Ok(())
    }

    #[test]
    fn an_exclusive_page_is_given_back_at_a_touch() -> Result {
        let memory = TestMemory::new(1)?;
        let (mm, start) = (memory.mm()?, memory.range().start);
        let mirror = mirror(&mm)?;
        memory.fill()?;
        let sequence = mirror.begin();
        {
            let guard = MmapReadGuard::lock(&mm, || false)?;
            mirror.make_exclusive(&guard, start, |page| {
                assert!(page.is_writable());
                Ok(())
            })?;
        }
        assert_eq!(mirror.mirrored().last.lock().1, 0);
        assert_eq!(memory.read(0)?, 0);
        let last = mirror.mirrored().last.lock();
        assert_eq!(*last, (start, 1));
        assert!(mirror.has_changed(sequence));
        Ok(())
    }
}
