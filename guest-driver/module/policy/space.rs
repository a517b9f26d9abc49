// SPDX-License-Identifier: GPL-2.0-only

//! One process.

use crate::sys::address_space::watch::Watcher;
use core::ops::Range;
use hmm_logic::{
    Advice,
    AdviceEntry,
    AdviceMap, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
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

/// What is known of a process.
#[pin_data(PinnedDrop)]
pub(crate) struct Space {
    #[pin]
    advice: SpinLock<AdviceMap<Entries>>,
    /// Whether there is any advice; counted in `advised`.
    has_advice: AtomicFlag,
    advised: Arc<Atomic<u64>>,
    ended: AtomicFlag,
}

impl Space {
    /// An address space without advice. `advised` counts those with advice.
    pub(super) fn new(advised: Arc<Atomic<u64>>) -> impl PinInit<Self, Error> {
        let map = AdviceMap::new(Entries(KVVec::new()));
        try_pin_init!(Self {
            advice <- new_spinlock!(map, "policy::Space::advice"),
            has_advice: AtomicFlag::new(false),
            advised,
            ended: AtomicFlag::new(false),
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
    /// the range is unmapped meanwhile.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `ENOSPC` if there would be too many ranges.
    pub(crate) fn advise(&self, range: Range<usize>, change: impl Fn(&mut Advice)) -> Result {
        loop {
            let mut map = self.advice.lock();
            let needed = map.room_for(&range);
            if needed <= map.room() {
                let result = map.update(range, change).map_err(|_| ENOSPC);
                self.count(!map.is_empty());
                return result;
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

    /// Says whether there is any advice. The caller holds `advice`.
    fn count(&self, any: bool) {
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

impl Watcher for Space {
    fn unmapped(&self, range: Range<usize>) {
        if self.has_advice() {
            let mut map = self.advice.lock();
            map.clear(range);
            self.count(!map.is_empty());
        }
    }

    fn ended(&self) {
        self.ended.store(true, Relaxed);
        let mut map = self.advice.lock();
        map.clear(0..usize::MAX);
        self.count(false);
    }
}

#[pinned_drop]
impl PinnedDrop for Space {
    fn drop(self: Pin<&mut Self>) {
        if self.has_advice() {
            self.advised.fetch_sub(1, Relaxed);
        }
    }
}
