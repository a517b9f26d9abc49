// SPDX-License-Identifier: GPL-2.0-only

//! What the device may access, and how it is told. All of this happens with the update lock.

mod entries;
mod windows;

pub(super) use self::entries::GRANULE_BYTES;
use self::entries::{
    Entries,
    Target, //
};
pub(crate) use self::windows::WindowRecord;
pub(super) use self::windows::FIRST;
use crate::{
    device::DeviceMemory,
    link::{
        Link,
        MapBatch,
        Mapped,
        NoAccess, //
    },
    sys::address_space::mirror::SeenPage, //
};
use core::ops::Range;
use hmm_logic::{
    Granule,
    PageAccess,
    GRANULE_PAGES, //
};
use hmm_protocol::{
    MapEntry,
    Status, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    }, //
};

/// Room for a granule, which is made before the update lock is taken.
pub(super) struct Spare(Option<RBTreeNodeReservation<usize, Granule>>);

impl Spare {
    /// Makes room.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Some(RBTreeNodeReservation::new(GFP_KERNEL)?)))
    }
}

/// A page that is being made exclusive.
struct Exclusive {
    address: usize,
    /// Whether the page may have gone since.
    is_broken: bool,
}

/// What is to be mapped, within one granule: the pages from an address on, one after the other.
pub(super) struct Pages<'a> {
    /// Of the first page.
    pub(super) start: usize,
    /// What to map at each page; `None` leaves it as it is.
    pub(super) seen: &'a mut dyn Iterator<Item = Option<(SeenPage, PageAccess)>>,
}

/// See the module.
pub(crate) struct Table {
    granules: RBTree<usize, Granule>,
    /// How often the device had been reset when the context was created, if it was: the device may access the windows.
    created: Option<u32>,
    /// The same once all windows are mapped.
    session: Option<u32>,
    /// Whether no context may be created any more.
    is_closed: bool,
    /// Whether the address space has ended.
    has_ended: bool,
    exclusive: Option<Exclusive>,
    /// How often advice began that has to be followed at the next page fault.
    advised: u64,
    pub(super) windows: KVec<WindowRecord>,
    /// Where the next window begins.
    pub(super) next_window: u64,
}

impl Table {
    /// Nothing is mapped.
    pub(super) fn new() -> Self {
        Self {
            granules: RBTree::new(),
            created: None,
            session: None,
            is_closed: false,
            has_ended: false,
            exclusive: None,
            advised: 0,
            windows: KVec::new(),
            next_window: FIRST,
        }
    }

    /// As [`super::view::View::ensure_context`].
    pub(super) fn ensure_context(&mut self, link: &Link, context: u32) -> Result<u32> {
        if self.is_closed {
            return Err(ENODEV);
        }
        if self.has_ended {
            return Err(ESRCH);
        }
        if let Some(session) = self.session(link) {
            return Ok(session);
        }
        self.session = None;
        self.granules = RBTree::new();
        let session = link.create_context(context)?;
        self.created = Some(session);
        for window in &self.windows {
            window.map(link, context, session)?;
        }
        self.session = Some(session);
        Ok(session)
    }

    /// How often the device had been reset when the context was created that exists now.
    pub(super) fn session(&self, link: &Link) -> Option<u32> {
        self.session.filter(|&session| session == link.resets())
    }

    /// Ends the context. With this and [`Table::end`] nothing is mapped any more.
    pub(super) fn close(&mut self, link: Option<&Link>, context: u32) {
        self.is_closed = true;
        if let (Some(created), Some(link)) = (self.created.take(), link) {
            self.empty(&link.destroy_context(context, created));
        }
        self.session = None;
        self.granules = RBTree::new();
    }

    /// The device of `link` goes, and was reset.
    pub(super) fn lose(&mut self, link: &Link) {
        let proof = self
            .created
            .and_then(|created| link.proof_of_reset(created));
        if let Some(proof) = proof {
            self.created = None;
            self.session = None;
            self.granules = RBTree::new();
            self.empty(&proof);
        }
    }

    /// The device accesses nothing of the context any more.
    fn empty(&self, proof: &NoAccess) {
        for window in &self.windows {
            window.withdraw(proof);
        }
    }

    /// Takes a window away. Without a device, it was taken away when the device went.
    pub(super) fn remove_window(
        &mut self,
        link: Option<&Link>,
        context: u32,
        window: &WindowRecord,
    ) {
        if let (Some(created), Some(link)) = (self.created, link) {
            let (address, bytes) = (window.address(), window.bytes());
            window.withdraw(&link.unmap(context, created, address, bytes));
        }
        self.windows
            .retain(|other| other.address() != window.address());
    }

    /// The address space has ended.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    /// Whether the device may access the page at `address` in this way.
    pub(super) fn has(&self, link: &Link, address: usize, access: PageAccess) -> bool {
        self.session(link).is_some()
            && self
                .granules
                .get(&(address / GRANULE_BYTES))
                .is_some_and(|granule| granule.has(page_in_granule(address), access))
    }

    /// The device asked for a page of the granule of `address`; returns how often it has.
    pub(super) fn touch(&mut self, address: usize, spare: &mut Spare) -> u32 {
        self.granule(address / GRANULE_BYTES, spare)
            .map_or(0, Granule::touch)
    }

    /// The granule with a number, which may be new.
    fn granule(&mut self, number: usize, spare: &mut Spare) -> Option<&mut Granule> {
        // A lookup first: its borrow would last too long in a `match`.
        if self.granules.get(&number).is_none() {
            let node = spare.0.take()?.into_node(number, Granule::new());
            self.granules.insert(node);
        }
        self.granules.get_mut(&number)
    }

    /// Whether the device may access anything in `range`.
    pub(super) fn any(&self, range: &Range<usize>) -> bool {
        let mut next = range.start / GRANULE_BYTES;
        while let Some(cursor) = self.granules.cursor_lower_bound(&next) {
            let (&number, granule) = cursor.current();
            let Some(pages) = pages_in(number, range) else {
                return false;
            };
            if granule.any(pages) {
                return true;
            }
            let Some(after) = number.checked_add(1) else {
                return false;
            };
            next = after;
        }
        false
    }

    /// Takes `range` away from the table; the device does not access it any more. With `forget`, also how
    /// often the device asked for pages.
    pub(super) fn forget(&mut self, range: &Range<usize>, forget: bool) {
        let mut from = range.start / GRANULE_BYTES;
        loop {
            let Some(mut cursor) = self.granules.cursor_lower_bound_mut(&from) else {
                return;
            };
            let (&number, granule) = cursor.current_mut();
            let Some(pages) = pages_in(number, range) else {
                return;
            };
            granule.take(pages);
            if forget {
                granule.forget_touches();
            }
            if granule.is_empty() {
                let (_, node) = cursor.remove_current();
                drop(node);
            }
            match number.checked_add(1) {
                Some(next) => from = next,
                None => return,
            }
        }
    }

    /// Notes that advice about `range` has changed: who looked at it before must look again. Page faults are counted anew.
    pub(super) fn advise(&mut self, range: &Range<usize>) {
        self.advised += 1;
        self.forget(range, true);
    }

    /// Changes with each [`Table::advise`].
    pub(super) fn advised(&self) -> u64 {
        self.advised
    }

    /// Notes that a page is about to be made exclusive.
    pub(super) fn begin_exclusive(&mut self, address: usize, is_broken: bool) {
        self.exclusive = Some(Exclusive { address, is_broken });
    }

    /// Notes that `range` changes.
    pub(super) fn break_exclusive(&mut self, range: &Range<usize>) {
        if let Some(exclusive) = &mut self.exclusive {
            exclusive.is_broken |= range.contains(&exclusive.address);
        }
    }

    /// Whether the page at `address` is still the one that was made exclusive.
    pub(super) fn end_exclusive(&mut self, address: usize) -> bool {
        let exclusive = self.exclusive.take();
        exclusive.is_some_and(|exclusive| exclusive.address == address && !exclusive.is_broken)
    }

    /// Lets the device access `pages`, which are there still, and the job of page fault `answer` try again. Pages that it
    /// may write are dirty from now on. Returns how many pages were mapped, and what became of it: all of them, or the
    /// device has nothing from the first page to the last.
    pub(super) fn map(
        &mut self,
        link: &Link,
        context: u32,
        memory: &DeviceMemory,
        pages: Pages<'_>,
        answer: Option<u64>,
        spare: &mut Spare,
    ) -> (usize, Mapped) {
        let Some(session) = self.session(link) else {
            return (0, Mapped::Reset);
        };
        let first = page_in_granule(pages.start);
        let Some(granule) = self.granule(pages.start / GRANULE_BYTES, spare) else {
            return (0, Mapped::Refused(Status::NoMemory));
        };
        let mut entries = Entries::new(link, context, session);
        let (mut count, mut address) = (0, pages.start);
        let mut marked = None;
        for (index, seen) in (first..GRANULE_PAGES).zip(pages.seen) {
            if let Some((page, access)) = seen {
                if let Ok(target) = target(link, memory, page) {
                    // Before the device is told: what may be mapped must be taken away again.
                    granule.give(index..index + 1, access);
                    count += 1;
                    if access != PageAccess::Read {
                        // Before the device can write to it. A huge page is marked as a whole.
                        if !marked.is_some_and(|marked| page.continues(marked)) {
                            page.mark_dirty();
                        }
                        marked = Some(page);
                    }
                    entries.add(address as u64, target, access);
                }
            }
            address += PAGE_SIZE;
        }
        let mapped = entries.finish(answer);
        let bytes = address - pages.start;
        if bytes > 0 && matches!(mapped, Mapped::Failed(..) | Mapped::Refused(_)) {
            // Which of the pages the device has is not known, and what is said of them must be true.
            link.unmap(context, session, pages.start as u64, bytes as u64);
            granule.take(first..first + bytes / PAGE_SIZE);
            count = 0;
        }
        (count, mapped)
    }

    /// Tells the device how a page fault ends.
    pub(super) fn answer(&self, link: &Link, context: u32, entry: MapEntry) -> Mapped {
        let Some(session) = self.session(link) else {
            return Mapped::Reset;
        };
        let mut batch = MapBatch::new(link, context);
        match batch.push(entry) {
            Ok(()) => batch.execute(session),
            Err(_) => Mapped::Refused(Status::Internal),
        }
    }
}

/// Where the device finds a page that was seen.
///
/// # Errors
///
/// `ENOMEM` the device does not reach it, `ENODEV` there is no device.
fn target(link: &Link, memory: &DeviceMemory, page: SeenPage) -> Result<Target> {
    match memory.index_of_pfn(page.pfn()) {
        Some(index) => Ok(Target::Device((index << PAGE_SHIFT) as u64)),
        None => link.shared_address(page.pfn()).map(Target::System),
    }
}

/// The number of the page at `address` within its granule.
fn page_in_granule(address: usize) -> usize {
    address % GRANULE_BYTES / PAGE_SIZE
}

/// The pages of the granule with a number that are in `range`, as numbers within the granule; `None` if the
/// granule begins behind the range. Parts of pages count as pages.
fn pages_in(number: usize, range: &Range<usize>) -> Option<Range<usize>> {
    let start = number.checked_mul(GRANULE_BYTES)?;
    if start >= range.end {
        return None;
    }
    let from = range.start.saturating_sub(start) / PAGE_SIZE;
    let to = (range.end - start).div_ceil(PAGE_SIZE);
    Some(from.min(GRANULE_PAGES)..to.min(GRANULE_PAGES))
}

#[kunit_tests(virtio_hmm_space_table)]
mod tests {
    use super::*;

    const GRANULE: usize = 5;

    /// A table in which the device may read `pages` of a granule.
    fn table(pages: Range<usize>) -> Result<Table> {
        let mut table = Table::new();
        let mut spare = Spare::new()?;
        let granule = table.granule(GRANULE, &mut spare).ok_or(ENOMEM)?;
        granule.give(pages, PageAccess::Read);
        Ok(table)
    }

    fn page(index: usize) -> usize {
        GRANULE * GRANULE_BYTES + index * PAGE_SIZE
    }

    #[test]
    fn what_is_taken_is_not_there_any_more() -> Result {
        let mut table = table(10..20)?;
        assert!(table.any(&(page(19)..page(20))) && !table.any(&(page(20)..page(512))));
        assert!(table.any(&(0..usize::MAX)) && !table.any(&(0..page(10))));
        table.forget(&(page(10)..page(19)), false);
        assert!(!table.any(&(0..page(19))) && table.any(&(0..page(20))));
        table.forget(&(0..usize::MAX), true);
        assert!(!table.any(&(0..usize::MAX)) && table.granules.is_empty());
        Ok(())
    }

    #[test]
    fn a_part_of_a_page_is_a_page() -> Result {
        let table = table(3..4)?;
        assert!(table.any(&(page(3) + 1..page(3) + 2)));
        assert!(!table.any(&(page(2) + 1..page(3))) && !table.any(&(page(4)..page(4) + 1)));
        Ok(())
    }

    #[test]
    fn touches_outlast_pages_until_they_are_forgotten() -> Result {
        let (mut table, mut spare) = (Table::new(), Spare::new()?);
        assert_eq!(table.touch(page(0), &mut spare), 1);
        table.forget(&(page(0)..page(1)), false);
        assert_eq!(table.touch(page(7), &mut spare), 2);
        table.forget(&(page(0)..page(1)), true);
        assert!(table.granules.is_empty());
        // The room was used up.
        assert_eq!(table.touch(page(0), &mut spare), 0);
        Ok(())
    }

    #[test]
    fn advice_takes_pages_and_counts_anew() -> Result {
        let (mut table, mut spare) = (table(10..20)?, Spare::new()?);
        assert_eq!(table.touch(page(0), &mut spare), 1);
        let before = table.advised();
        table.advise(&(page(15)..page(16)));
        assert!(table.advised() != before && !table.any(&(page(15)..page(16))));
        assert!(table.any(&(page(10)..page(15))));
        assert_eq!(table.touch(page(0), &mut spare), 1);
        Ok(())
    }

    #[test]
    fn another_page_breaks_no_exclusive_access() {
        let mut table = Table::new();
        table.begin_exclusive(page(1), false);
        table.break_exclusive(&(page(2)..page(3)));
        assert!(table.end_exclusive(page(1)) && !table.end_exclusive(page(1)));
        table.begin_exclusive(page(1), false);
        table.break_exclusive(&(page(1)..page(2)));
        assert!(!table.end_exclusive(page(1)));
        table.begin_exclusive(page(1), true);
        assert!(!table.end_exclusive(page(1)));
        table.begin_exclusive(page(1), false);
        assert!(!table.end_exclusive(page(2)));
    }

    #[test]
    fn a_closed_table_gets_no_context() {
        let mut table = Table::new();
        table.close(None, 0);
        assert!(table.is_closed && table.session.is_none());
    }
}
