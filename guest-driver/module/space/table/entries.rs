// SPDX-License-Identifier: GPL-2.0-only

//! Pages on their way into batches: those that follow each other on both sides become one entry.

use crate::link::{
    Link,
    MapBatch,
    Mapped, //
};
use hmm_logic::{
    PageAccess,
    GRANULE_PAGES, //
};
use hmm_protocol::{
    MapEntry,
    MapFlags,
    Status, //
};
use kernel::page::{
    PAGE_SHIFT,
    PAGE_SIZE, //
};

/// Bytes of a granule.
pub(in crate::space) const GRANULE_BYTES: usize = GRANULE_PAGES * PAGE_SIZE;

/// Where the device finds a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// In its own memory, at an offset in bytes.
    Device(u64),
    /// In system memory.
    System(u64),
}

/// Pages that follow each other.
#[derive(Clone, Copy)]
struct Run {
    address: u64,
    bytes: u64,
    target: Target,
    access: PageAccess,
}

impl Run {
    fn flags(&self) -> MapFlags {
        let access = match self.access {
            PageAccess::Read => MapFlags::READ,
            PageAccess::Write => MapFlags::READ.union(MapFlags::WRITE),
            PageAccess::Atomic => MapFlags::PERMISSIONS,
        };
        match self.target {
            Target::Device(_) => access.union(MapFlags::DEVICE),
            Target::System(_) => access,
        }
    }

    fn entry(&self) -> MapEntry {
        let (Target::Device(target) | Target::System(target)) = self.target;
        let huge = GRANULE_BYTES as u64;
        let is_huge = self.bytes == huge && self.address % huge == 0 && target % huge == 0;
        // CAST: Both are small.
        let shift = match is_huge {
            true => GRANULE_BYTES.ilog2() as u8,
            false => PAGE_SHIFT as u8,
        };
        MapEntry::map(self.address, self.bytes, target, self.flags(), shift)
    }

    /// Whether a page at these places follows.
    fn is_followed_by(&self, address: u64, target: Target, access: PageAccess) -> bool {
        let next = match self.target {
            Target::Device(offset) => offset.checked_add(self.bytes).map(Target::Device),
            Target::System(place) => place.checked_add(self.bytes).map(Target::System),
        };
        self.access == access
            && self.address.checked_add(self.bytes) == Some(address)
            && next == Some(target)
    }
}

/// Pages of one granule on their way to the device.
pub(super) struct Entries<'a> {
    link: &'a Link,
    context: u32,
    session: u32,
    run: Option<Run>,
    batch: Option<MapBatch<'a>>,
    /// What became of the batches so far.
    mapped: Mapped,
}

impl<'a> Entries<'a> {
    pub(super) fn new(link: &'a Link, context: u32, session: u32) -> Self {
        Self {
            link,
            context,
            session,
            run: None,
            batch: None,
            mapped: Mapped::All,
        }
    }

    /// Adds a page.
    pub(super) fn add(&mut self, address: u64, target: Target, access: PageAccess) {
        match &mut self.run {
            Some(run) if run.is_followed_by(address, target, access) => {
                run.bytes += PAGE_SIZE as u64;
            }
            _ => {
                let new = Run {
                    address,
                    bytes: PAGE_SIZE as u64,
                    target,
                    access,
                };
                if let Some(run) = self.run.replace(new) {
                    self.push(run.entry());
                }
            }
        }
    }

    /// Tells the device of everything, and then lets the job of a page fault try again.
    pub(super) fn finish(mut self, answer: Option<u64>) -> Mapped {
        if let Some(run) = self.run.take() {
            self.push(run.entry());
        }
        if self.mapped == Mapped::All {
            if let Some(fault) = answer {
                self.push(MapEntry::resume(fault));
            }
        }
        self.execute();
        self.mapped
    }

    fn push(&mut self, entry: MapEntry) {
        if self.batch.as_ref().is_some_and(|batch| batch.room() == 0) {
            self.execute();
        }
        if self.mapped != Mapped::All {
            return;
        }
        let (link, context) = (self.link, self.context);
        let batch = self
            .batch
            .get_or_insert_with(|| MapBatch::new(link, context));
        if batch.push(entry).is_err() {
            self.mapped = Mapped::Refused(Status::Internal);
        }
    }

    fn execute(&mut self) {
        let Some(batch) = self.batch.take() else {
            return;
        };
        if self.mapped != Mapped::All {
            return;
        }
        let last = batch.len().checked_sub(1);
        self.mapped = match batch.execute(self.session) {
            // The job has ended meanwhile; only the last entry answers a page fault.
            Mapped::Failed(index, Status::BadFault) if Some(index) == last => Mapped::All,
            mapped => mapped,
        };
    }
}
