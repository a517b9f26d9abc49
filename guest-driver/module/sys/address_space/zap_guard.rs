// SPDX-License-Identifier: GPL-2.0-only

//! Blocks tasks that are about to zap huge entries of a range while it is migrated.
//!
//! `MADV_DONTNEED` and its like zap entries under the mmap lock for reading, so a migration under the
//! same lock does not exclude them. Where the kernel cannot zap an entry correctly while it is being
//! migrated (docs/kernel-faults.md), the zapping task blocks in its notifier until the migration is
//! done. `munmap()` takes the mmap lock for writing, and the address space of an exiting process has
//! no users left: the lock and the user reference of the migration exclude both.
//!
//! # Why this cannot deadlock
//!
//! A migration takes locks of the reverse mapping (`folio_split()` for writing, and
//! `remove_migration_ptes()` for reading, behind any writer that waits), so a task that holds one must
//! never block here. Such a task walks the reverse mapping of a page that it has locked, and calls the
//! notifiers of every address that the walk leads to, also where another page is mapped by now. Hence:
//!
//! - Only exclusive ranges are held ([`Exclusive`](super::exclusive::Exclusive)): no walk leads there
//!   from a page of a forked process, or from a page that `mremap()` moved away. A walk leads there only
//!   from the page that is there. Either the migration has that locked, or it is a device page, for
//!   which only the driver's own migrations walk. Test: `huge/moved-aside-and-walked-anon-thp`.
//! - A zapping task blocks only if the range that it zaps covers a whole huge entry, of a device page or
//!   of a page under migration. A task that zaps a part of a huge page splits it first, which zaps the
//!   whole entry for a moment.
//! - A migration does not block on itself: it zaps single pages, or the entry of a page that it is
//!   splitting ([`OwnZaps`]).
//!
//! A task that finds something else at the address does not block. It may still be zapping when a huge
//! device page has been installed there, so none may be installed: the holds that it passed record it.

use crate::sys::{
    address_space::{
        mm::Vma,
        mmap_lock::MmapWriteGuard, //
    },
    bindings,
    device_memory::owner::Owner, //
};
use core::ops::Range;
use kernel::{
    mm::Mm,
    new_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        CondVar,
        SpinLock, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
    types::NotThreadSafe, //
};

/// Holds of one address space at once.
const MOST: usize = 32;
/// How long a caller that must not wait is told to try again.
const PATIENCE: Delta = Delta::from_millis(100);
/// A refusal that is older than this belongs to an earlier series of attempts.
const FORGOTTEN: Delta = Delta::from_secs(1);

/// A range that is held, and its holder.
struct Slot {
    range: Range<usize>,
    /// The pagemap whose pages must not be zapped.
    owner: Owner,
    /// Address of the task, to tell it from others.
    task: usize,
    /// Where tasks may be zapping that found no huge device page.
    passed: Range<usize>,
}

impl Slot {
    /// The part of `range` that is held by another task.
    fn common(&self, range: &Range<usize>, task: usize) -> Option<Range<usize>> {
        let common = intersection(&self.range, range);
        (self.task != task && !common.is_empty()).then_some(common)
    }

    /// Records that a task goes on to zap `range`.
    fn pass(&mut self, range: Range<usize>) {
        self.passed = if self.passed.is_empty() {
            range
        } else {
            self.passed.start.min(range.start)..self.passed.end.max(range.end)
        };
    }
}

fn intersection(one: &Range<usize>, other: &Range<usize>) -> Range<usize> {
    one.start.max(other.start)..one.end.min(other.end)
}

struct Slots {
    slots: [Option<Slot>; MOST],
    /// Tasks that wait for a hold to end.
    waiting: usize,
    /// Whether a clear has begun and is not known to have ended. Interval notifiers hear of the
    /// beginning only; [`ZapGuards::settle`] finds out about the end.
    unsettled: bool,
    /// When a caller that must not wait was first refused, since a hold was last given.
    refused: Option<Instant<Monotonic>>,
}

/// Why a caller that must not wait got no hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotHeld {
    /// A clear may be going on. Try again once [`Watch::settle`](super::watch::Watch::settle) has
    /// returned.
    Unsettled,
    /// Clears have been going on for too long, or there are too many holds.
    Refused,
}

/// All holds of one address space.
#[pin_data]
pub(in crate::sys) struct ZapGuards {
    #[pin]
    slots: SpinLock<Slots>,
    #[pin]
    released: CondVar,
}

impl ZapGuards {
    /// Nothing is held.
    pub(in crate::sys) fn new() -> impl PinInit<Self> {
        let slots = Slots {
            slots: [const { None }; MOST],
            waiting: 0,
            unsettled: false,
            refused: None,
        };
        pin_init!(Self {
            slots <- new_spinlock!(slots, "ZapGuards::slots"),
            released <- new_condvar!("ZapGuards::released"),
        })
    }

    /// The calling task is about to zap `range` of `mm`. Calls `note`, after which no hold begins, and
    /// waits for existing holds to end; returns false if it would have to sleep and `may_sleep` is
    /// false.
    ///
    /// The caller keeps the page tables of `range` alive.
    pub(in crate::sys) fn clear(
        &self,
        mm: &Mm,
        range: Range<usize>,
        may_sleep: bool,
        note: impl FnOnce(),
    ) -> bool {
        let task = this_task();
        let mut slots = self.slots.lock();
        slots.unsettled = true;
        note();
        loop {
            let mut held = slots.slots.iter().flatten().filter_map(|slot| {
                let common = slot.common(&range, task)?;
                Some((common, slot.owner))
            });
            if !held.any(|(common, owner)| has_huge_leaf(mm, common, owner)) {
                break;
            }
            if !may_sleep {
                return false;
            }
            slots.waiting += 1;
            self.released.wait(&mut slots);
            slots.waiting -= 1;
        }
        for slot in slots.slots.iter_mut().flatten() {
            if let Some(common) = slot.common(&range, task) {
                slot.pass(common);
            }
        }
        true
    }

    /// Begins to hold `range` of `mm`, which is exclusive, for the device pages of `owner`, unless
    /// `is_noted` says that a zap began. All zaps that were noted before are over.
    ///
    /// # Errors
    ///
    /// `EAGAIN`: a zap began. `ENOSPC`: there are too many holds.
    pub(in crate::sys) fn hold<'a>(
        &'a self,
        mm: &'a Mm,
        range: Range<usize>,
        owner: Owner,
        is_noted: impl FnOnce() -> bool,
    ) -> Result<ZapGuard<'a>> {
        let mut slots = self.slots.lock();
        if is_noted() {
            return Err(EAGAIN);
        }
        slots.unsettled = false;
        let index = slots.begin(range.clone(), owner).ok_or(ENOSPC)?;
        drop(slots);
        Ok(ZapGuard::new(self, mm, range, index))
    }

    /// As [`Self::hold`], without waiting for clears to end: if one may be going on there is no
    /// hold.
    ///
    /// # Errors
    ///
    /// [`NotHeld`].
    pub(in crate::sys) fn try_hold<'a>(
        &'a self,
        mm: &'a Mm,
        range: Range<usize>,
        owner: Owner,
    ) -> Result<ZapGuard<'a>, NotHeld> {
        let mut slots = self.slots.lock();
        if slots.unsettled {
            return Err(slots.refuse());
        }
        let index = slots.begin(range.clone(), owner).ok_or(NotHeld::Refused)?;
        drop(slots);
        Ok(ZapGuard::new(self, mm, range, index))
    }

    /// All clears that were noted before are over, unless `is_noted` says that another one began.
    /// Returns whether that is so.
    pub(in crate::sys) fn settle(&self, is_noted: impl FnOnce() -> bool) -> bool {
        let mut slots = self.slots.lock();
        if !is_noted() {
            slots.unsettled = false;
        }
        !slots.unsettled
    }
}

impl Slots {
    /// Takes a slot; `None` if there are too many holds.
    fn begin(&mut self, range: Range<usize>, owner: Owner) -> Option<usize> {
        let index = self.slots.iter().position(Option::is_none)?;
        self.slots[index] = Some(Slot {
            range,
            owner,
            task: this_task(),
            passed: 0..0,
        });
        self.refused = None;
        Some(index)
    }

    /// Refuses a caller that must not wait. A series of refusals is bounded: a process that clears
    /// without a pause does not keep another of its threads in a fault for ever.
    fn refuse(&mut self) -> NotHeld {
        refusal(self.refused.map(|first| first.elapsed())).unwrap_or_else(|| {
            self.refused = Some(Instant::now());
            NotHeld::Unsettled
        })
    }
}

/// The answer to a caller that was first refused so long ago; `None` if it begins a new series.
fn refusal(since: Option<Delta>) -> Option<NotHeld> {
    match since? {
        time if time < PATIENCE => Some(NotHeld::Unsettled),
        time if time < FORGOTTEN => Some(NotHeld::Refused),
        _ => None,
    }
}

fn this_task() -> usize {
    current!().as_ptr() as usize
}

/// Whether a huge entry wholly within `range` maps a device page of `owner` or a page that is being
/// migrated. The caller keeps the page tables of `range` alive.
pub(in crate::sys) fn has_huge_leaf(mm: &Mm, range: Range<usize>, owner: Owner) -> bool {
    let owner = owner.as_raw().cast();
    // SAFETY: The address space is valid. Callers keep the page tables of the range alive: they are
    // about to zap it, or have the mmap lock. An owner is the address of a pagemap, which outlives
    // its holds and this call.
    unsafe { bindings::vhmm_mm_has_huge_leaf(mm.as_raw(), range.start, range.end, owner) }
}

/// While it lives, other tasks that are about to zap entries of huge device pages in a range block.
///
/// A task must not begin a second hold: a zapping task may block on the first while the second waits
/// for that task.
///
/// It belongs to the task that began it, which may zap, and lives no longer than the mmap lock is
/// held: without the lock the range need not stay exclusive.
///
/// # Examples
///
/// ```ignore
/// // Under the mmap lock, before anything is collected.
/// let range = Exclusive::of(&vma, range).ok_or(EBUSY)?;
/// let select = match watch.hold(range, memory.owner()).as_ref() {
///     Some(hold) => Select::DeviceHuge(ZapExclusion::Held(hold)),
///     // A zap is under way; single pages need no hold.
///     None => Select::Device,
/// };
/// ```
pub(crate) struct ZapGuard<'a> {
    holds: &'a ZapGuards,
    mm: &'a Mm,
    range: Range<usize>,
    index: usize,
    _not_send: NotThreadSafe,
}

impl<'a> ZapGuard<'a> {
    fn new(holds: &'a ZapGuards, mm: &'a Mm, range: Range<usize>, index: usize) -> Self {
        Self {
            holds,
            mm,
            range,
            index,
            _not_send: NotThreadSafe,
        }
    }

    /// Whether all of `range` of the mapping's address space is held.
    fn covers(&self, vma: &Vma<'_>, range: &Range<usize>) -> bool {
        self.mm.as_raw() == vma.mm().as_raw()
            && self.range.start <= range.start
            && range.end <= self.range.end
    }

    /// Whether a task may be zapping entries of `range` that found no huge device page there.
    fn was_passed(&self, range: &Range<usize>) -> bool {
        let slots = self.holds.slots.lock();
        (slots.slots[self.index].as_ref())
            .is_some_and(|slot| !intersection(&slot.passed, range).is_empty())
    }

    /// Whether a task waits for the end of a hold.
    pub(crate) fn is_contended(&self) -> bool {
        self.holds.slots.lock().waiting > 0
    }
}

impl Drop for ZapGuard<'_> {
    fn drop(&mut self) {
        let mut slots = self.holds.slots.lock();
        slots.slots[self.index] = None;
        let is_wanted = slots.waiting > 0;
        drop(slots);
        if is_wanted {
            self.holds.released.notify_all();
        }
    }
}

/// Why entries of a range are not zapped.
#[derive(Clone, Copy)]
pub(crate) enum ZapExclusion<'a> {
    /// Zapping tasks block.
    Held(&'a ZapGuard<'a>),
    /// Zapping takes a lock that the caller holds: that of the address space or of the mapping.
    Locked(&'a MmapWriteGuard<'a>),
}

impl ZapExclusion<'_> {
    /// Makes this hold for `range` of the mapping; false if it does not.
    pub(in crate::sys) fn ensure(self, vma: &Vma<'_>, range: &Range<usize>) -> bool {
        match self {
            Self::Held(hold) => hold.covers(vma, range),
            Self::Locked(lock) if lock.is_of(vma) => {
                lock.keep_faults_out(vma);
                true
            }
            Self::Locked(_) => false,
        }
    }

    /// Whether a task may be zapping entries of `range` nevertheless, because it found no huge device
    /// page there; none must be installed now.
    pub(in crate::sys) fn was_passed(self, range: &Range<usize>) -> bool {
        match self {
            Self::Held(hold) => hold.was_passed(range),
            Self::Locked(_) => false,
        }
    }
}

/// While it lives, its task does not block when it zaps entries. For migrations, which zap no huge
/// entry but that of a page that they have locked.
pub(in crate::sys) struct OwnZaps {
    flags: u32,
    _not_send: NotThreadSafe,
}

impl OwnZaps {
    /// Begins.
    pub(in crate::sys) fn begin() -> Self {
        Self {
            // SAFETY: Has no requirements. The drop ends it.
            flags: unsafe { bindings::vhmm_own_clears_begin() },
            _not_send: NotThreadSafe,
        }
    }

    /// Whether the current task may zap without blocking: it is within such a scope, or it reclaims or
    /// compacts, which zaps no device pages and on which a holder may depend.
    pub(in crate::sys) fn are_made() -> bool {
        // SAFETY: Has no requirements.
        unsafe { bindings::vhmm_task_makes_own_clears() || bindings::vhmm_task_reclaims() }
    }
}

impl Drop for OwnZaps {
    fn drop(&mut self) {
        // SAFETY: The flags come from the beginning, on this thread.
        unsafe { bindings::vhmm_own_clears_end(self.flags) };
    }
}

#[kunit_tests(virtio_hmm_zap_guard)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        Slot {
            range: 10..20,
            owner: Owner::nobody(),
            task: 1,
            passed: 0..0,
        }
    }

    #[test]
    fn a_slot_is_held_against_others() {
        let slot = slot();
        assert!(slot.common(&(19..30), 2) == Some(19..20));
        assert!(slot.common(&(0..11), 2) == Some(10..11));
        assert!(slot.common(&(20..30), 2).is_none());
        assert!(slot.common(&(0..10), 2).is_none());
        assert!(slot.common(&(10..20), 1).is_none());
    }

    #[test]
    fn a_caller_that_must_not_wait_is_refused_while_a_clear_may_be_going_on() -> Result {
        let memory = crate::sys::services::kunit::TestMemory::new(1)?;
        let mm = memory.mm()?;
        let holds = KBox::pin_init(ZapGuards::new(), GFP_KERNEL)?;
        let try_hold = || {
            holds
                .try_hold(&mm, memory.range(), Owner::nobody())
                .map(drop)
        };
        assert!(try_hold().is_ok());
        assert!(holds.clear(&mm, memory.range(), true, || {}));
        assert!(try_hold() == Err(NotHeld::Unsettled));
        // Another one began before the first one was seen to end.
        assert!(!holds.settle(|| true));
        assert!(try_hold() == Err(NotHeld::Unsettled));
        assert!(holds.settle(|| false));
        assert!(try_hold().is_ok());
        Ok(())
    }

    #[test]
    fn refusals_are_bounded() {
        assert!(refusal(None).is_none());
        assert!(refusal(Some(Delta::ZERO)) == Some(NotHeld::Unsettled));
        assert!(refusal(Some(PATIENCE)) == Some(NotHeld::Refused));
        assert!(refusal(Some(FORGOTTEN)).is_none());
    }

    #[test]
    fn a_hold_ends_a_series_of_refusals() {
        let mut slots = Slots {
            slots: [const { None }; MOST],
            waiting: 0,
            unsettled: true,
            refused: None,
        };
        assert!(slots.refuse() == NotHeld::Unsettled);
        assert!(slots.refused.is_some());
        assert!(slots.begin(0..1, Owner::nobody()).is_some());
        assert!(slots.refused.is_none());
    }

    #[test]
    fn a_slot_remembers_who_passed() {
        let mut slot = slot();
        slot.pass(12..13);
        assert!(slot.passed == (12..13));
        slot.pass(15..17);
        assert!(slot.passed == (12..17));
        assert!(intersection(&slot.passed, &(17..20)).is_empty());
    }
}
