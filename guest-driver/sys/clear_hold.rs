// SPDX-License-Identifier: GPL-2.0-only

//! Holds back those who are about to clear page table entries of an address space.
//!
//! `MADV_DONTNEED` and its like clear entries without the mmap lock for writing, so a migration
//! under the mmap lock for reading does not keep them away. Where it has to, because the kernel
//! does not clear an entry right that is being migrated, they wait for the migration.
//!
//! Those who unmap need the mmap lock for writing, and who ends an address space needs it to have
//! no users: against both the lock and the user that a migration has anyway are enough.

use super::{
    mm::Vma,
    mmap_lock::MmapWriteGuard, //
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
    }, //
};

/// Holds of one address space at once.
const MOST: usize = 32;

/// What is held, and who holds it.
struct Slot {
    range: Range<usize>,
    /// Address of the task, to tell it from others.
    task: usize,
}

struct Slots {
    slots: [Option<Slot>; MOST],
    /// How many wait for a hold to end.
    waiting: usize,
}

impl Slots {
    /// Whether a task other than `task` holds anything of `range`.
    fn overlaps(&self, range: &Range<usize>, task: usize) -> bool {
        self.slots.iter().flatten().any(|slot| {
            slot.task != task && slot.range.start < range.end && range.start < slot.range.end
        })
    }
}

/// All holds of one address space.
#[pin_data]
pub(super) struct ClearHolds {
    #[pin]
    slots: SpinLock<Slots>,
    #[pin]
    released: CondVar,
}

impl ClearHolds {
    /// Nothing is held.
    pub(super) fn new() -> impl PinInit<Self> {
        let slots = Slots {
            slots: [const { None }; MOST],
            waiting: 0,
        };
        pin_init!(Self {
            slots <- new_spinlock!(slots, "ClearHolds::slots"),
            released <- new_condvar!("ClearHolds::released"),
        })
    }

    /// Somebody is about to clear `range`. Notes it with `note`, so that no hold begins, and waits
    /// for the holds that there are; if that would be to sleep and `may_sleep` is false, returns
    /// false.
    ///
    /// A task never waits for itself: what it clears, like a huge page that it splits, it knows of.
    pub(super) fn clear(&self, range: Range<usize>, may_sleep: bool, note: impl FnOnce()) -> bool {
        let task = this_task();
        let mut slots = self.slots.lock();
        note();
        while slots.overlaps(&range, task) {
            if !may_sleep {
                return false;
            }
            slots.waiting += 1;
            self.released.wait(&mut slots);
            slots.waiting -= 1;
        }
        true
    }

    /// Begins to hold `range` of `mm`, unless `is_noted` says that somebody began to clear.
    ///
    /// # Errors
    ///
    /// `EAGAIN`: somebody began to clear. `ENOSPC`: there are too many holds.
    pub(super) fn hold<'a>(
        &'a self,
        mm: &'a Mm,
        range: Range<usize>,
        is_noted: impl FnOnce() -> bool,
    ) -> Result<ClearHold<'a>> {
        let mut slots = self.slots.lock();
        if is_noted() {
            return Err(EAGAIN);
        }
        let index = (slots.slots.iter().position(Option::is_none)).ok_or(ENOSPC)?;
        slots.slots[index] = Some(Slot {
            range: range.clone(),
            task: this_task(),
        });
        drop(slots);
        Ok(ClearHold {
            holds: self,
            mm,
            range,
            index,
        })
    }
}

fn this_task() -> usize {
    current!().as_ptr() as usize
}

/// While it lives, whoever is to clear entries of a range waits, except for reclaim, which clears
/// no device pages, and for the task that holds.
///
/// Its task must not begin another one meanwhile: who clears waits for the one and may be waited
/// for by the other.
pub(crate) struct ClearHold<'a> {
    holds: &'a ClearHolds,
    mm: &'a Mm,
    range: Range<usize>,
    index: usize,
}

impl ClearHold<'_> {
    /// Whether all of `range` of the mapping's address space is held.
    fn covers(&self, vma: &Vma<'_>, range: &Range<usize>) -> bool {
        self.mm.as_raw() == vma.mm().as_raw()
            && self.range.start <= range.start
            && range.end <= self.range.end
    }

    /// Whether somebody waits for the end of a hold.
    pub(crate) fn is_contended(&self) -> bool {
        self.holds.slots.lock().waiting > 0
    }
}

impl Drop for ClearHold<'_> {
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

/// Why nobody clears entries of a range.
#[derive(Clone, Copy)]
pub(crate) enum Undisturbed<'a> {
    /// Who is about to waits.
    Held(&'a ClearHold<'a>),
    /// Whoever clears needs a lock that we have: that of the address space or of the mapping.
    Locked(&'a MmapWriteGuard<'a>),
}

impl Undisturbed<'_> {
    /// Sees to it that it is so for `range` of the mapping; false if it is not.
    pub(super) fn ensure(self, vma: &Vma<'_>, range: &Range<usize>) -> bool {
        match self {
            Self::Held(hold) => hold.covers(vma, range),
            Self::Locked(lock) if lock.is_of(vma) => {
                lock.keep_faults_out(vma);
                true
            }
            Self::Locked(_) => false,
        }
    }
}

#[kunit_tests(virtio_hmm_clear_hold)]
mod tests {
    use super::*;

    #[test]
    fn only_others_overlap() {
        let mut slots = Slots {
            slots: [const { None }; MOST],
            waiting: 0,
        };
        slots.slots[3] = Some(Slot {
            range: 10..20,
            task: 1,
        });
        assert!(slots.overlaps(&(19..30), 2));
        assert!(slots.overlaps(&(0..11), 2));
        assert!(!slots.overlaps(&(20..30), 2));
        assert!(!slots.overlaps(&(0..10), 2));
        assert!(!slots.overlaps(&(10..20), 1));
    }
}
