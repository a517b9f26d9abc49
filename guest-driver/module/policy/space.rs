// SPDX-License-Identifier: GPL-2.0-only

//! One process.

use crate::sys::{
    address_space::{
        mm::add_pinned,
        tracking::KeptTables,
        watch::Watcher, //
    },
    device_memory::placement::Placement, //
};
use core::ops::Range;
use hmm_logic::{
    Advice,
    AdviceEntry,
    AdviceMap, //
};
use kernel::{
    mm::{
        Mm,
        MmWithUser, //
    },
    new_spinlock,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic,
            AtomicFlag, //
        },
        Arc,
        SpinLock, //
    }, //
};

/// Ranges of one process that can have advice.
const RANGES: usize = 4096;
/// Ranges that there is room for at first.
const RANGES_AT_FIRST: usize = 32;

/// Where the ranges are kept.
struct Entries(KVVec<AdviceEntry>);

impl AsRef<[AdviceEntry]> for Entries {
    fn as_ref(&self) -> &[AdviceEntry] {
        &self.0
    }
}

impl AsMut<[AdviceEntry]> for Entries {
    fn as_mut(&mut self) -> &mut [AdviceEntry] {
        &mut self.0
    }
}

/// Migrates pages back before the kernel does something wrong with them.
pub(crate) trait BringBack: Send + Sync {
    /// Migrates the pages of a range back, to `placement`, unless there is no device, or it
    /// takes too long. See [`Watcher::pages_wanted`] for what it may do.
    fn bring_back(&self, tables: KeptTables<'_>, placement: Option<Placement>);
}

/// What is known of a process.
#[pin_data(PinnedDrop)]
pub(crate) struct Space {
    #[pin]
    advice: SpinLock<AdviceMap<Entries>>,
    /// Whether there is any advice; counted in `advised`.
    has_advice: AtomicFlag,
    advised: Arc<Atomic<u64>>,
    ended: AtomicFlag,
    mm: ARef<Mm>,
    device: Arc<dyn BringBack>,
    /// Pages that are to be kept on the device, which count as pinned. Written with `advice` held.
    kept: Atomic<usize>,
}

impl Space {
    /// An address space without advice. `advised` counts those with advice.
    pub(super) fn new(
        mm: &MmWithUser,
        advised: Arc<Atomic<u64>>,
        device: Arc<dyn BringBack>,
    ) -> impl PinInit<Self, Error> {
        let mm: ARef<Mm> = ARef::from(&**mm);
        let map = AdviceMap::new(Entries(KVVec::new()));
        try_pin_init!(Self {
            advice <- new_spinlock!(map, "policy::Space::advice"),
            has_advice: AtomicFlag::new(false),
            advised,
            ended: AtomicFlag::new(false),
            mm,
            device,
            kept: Atomic::new(0),
        }? Error)
    }

    /// Whether the address space has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Whether anything is advised.
    pub(crate) fn has_advice(&self) -> bool {
        self.has_advice.load(Relaxed)
    }

    /// What is advised about `address`.
    pub(crate) fn advice(&self, address: usize) -> Advice {
        self.advice.lock().get(address)
    }

    /// What is advised about the start of `range`, and where other advice begins.
    pub(crate) fn run(&self, range: Range<usize>) -> (Advice, usize) {
        self.advice.lock().run(range)
    }

    /// Changes the advice about `range`. The caller holds the mmap lock, so that nothing of
    /// the range is unmapped meanwhile. `may_pin` pages may count as pinned, if there are more to be
    /// kept then. Returns the part, which may be empty, that [begins](beginning) to move by page
    /// faults of the device.
    ///
    /// # Errors
    ///
    /// `ENOMEM` also for too many pages to be kept, or `ENOSPC` if there would be too many ranges.
    pub(crate) fn advise(
        &self,
        range: Range<usize>,
        may_pin: usize,
        change: impl Fn(&mut Advice),
    ) -> Result<Range<usize>> {
        loop {
            let mut map = self.advice.lock();
            let needed = map.room_for(&range);
            if needed <= map.room() {
                let mut example = Advice::default();
                change(&mut example);
                let more = match example.keep {
                    true => (range.len() - map.kept(range.clone())) >> PAGE_SHIFT,
                    false => 0,
                };
                let pinned = usize::try_from(add_pinned(&self.mm, 0)).unwrap_or(0);
                if more > 0 && pinned.saturating_add(more) > may_pin {
                    return Err(ENOMEM);
                }
                let begins = beginning(&map, &range, &change);
                let result = map.update(range, change).map_err(|_| ENOSPC);
                self.count(&map);
                return result.map(|()| begins);
            }
            let room = needed.max(2 * map.room()).max(RANGES_AT_FIRST);
            drop(map);
            if needed > RANGES {
                return Err(ENOSPC);
            }
            let more = KVVec::from_elem(AdviceEntry::UNUSED, room, GFP_KERNEL)?;
            // Old storage, or new storage that has become too small meanwhile.
            let old = self.advice.lock().move_to(Entries(more));
            drop(old);
        }
    }

    /// Says whether there is any advice, and how many pages are to be kept. The caller holds `advice`.
    fn count(&self, map: &AdviceMap<Entries>) {
        let any = !map.is_empty();
        self.pin(map.kept(0..usize::MAX) >> PAGE_SHIFT);
        if self.has_advice.load(Relaxed) != any {
            self.has_advice.store(any, Relaxed);
            if any {
                self.advised.fetch_add(1, Relaxed);
            } else {
                self.advised.fetch_sub(1, Relaxed);
            }
        }
    }
}

/// The part of `range` of which the first and the last page move by a page fault of the device when `change` is made by
/// which they do not yet.
fn beginning(
    map: &AdviceMap<Entries>,
    range: &Range<usize>,
    change: impl Fn(&mut Advice),
) -> Range<usize> {
    let mut begins = range.end..range.end;
    let mut address = range.start;
    while address < range.end {
        let (before, end) = map.run(address..range.end);
        let mut after = before;
        change(&mut after);
        let touches = after.moves_at_touch();
        if touches.is_some() && touches != before.moves_at_touch() {
            begins.start = begins.start.min(address);
            begins.end = end;
        }
        address = end.max(address + 1);
    }
    begins
}

impl Space {
    /// So many pages of the address space count as pinned from now on.
    fn pin(&self, pages: usize) {
        let before = self.kept.load(Relaxed);
        if pages != before {
            self.kept.store(pages, Relaxed);
            // CAST: Neither has more pages than an address space.
            add_pinned(&self.mm, pages as isize - before as isize);
        }
    }
}

impl Watcher for Space {
    fn unmapped(&self, range: Range<usize>) {
        if self.has_advice() {
            let mut map = self.advice.lock();
            map.clear(range);
            self.count(&map);
        }
    }

    fn pages_wanted(&self, tables: KeptTables<'_>, placement: Option<Placement>) {
        self.device.bring_back(tables, placement);
    }

    fn ended(&self) {
        self.ended.store(true, Relaxed);
        let mut map = self.advice.lock();
        map.clear(0..usize::MAX);
        self.count(&map);
    }
}

#[pinned_drop]
impl PinnedDrop for Space {
    fn drop(self: Pin<&mut Self>) {
        self.pin(0);
        if self.has_advice() {
            self.advised.fetch_sub(1, Relaxed);
        }
    }
}
