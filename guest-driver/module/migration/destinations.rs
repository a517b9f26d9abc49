// SPDX-License-Identifier: GPL-2.0-only

//! Gives the sources of a migration pages in system memory. Every path out of the device goes through
//! here, so that each allocates where the owner of the memory may have it.

use crate::sys::{
    address_space::mm::Vma,
    device_memory::{
        page_stock::PageStock,
        placement::Placement, //
    },
    migrate::{
        Collected,
        Migration,
        Source,
        Visit, //
    }, //
};
use kernel::page::PAGE_SIZE;

/// Destinations in system memory for one migration.
pub(super) struct SystemDestinations<'a> {
    stock: PageStock<'a>,
    /// The address of the first source.
    start: usize,
    refuse_huge: bool,
}

impl<'a> SystemDestinations<'a> {
    /// For a migration that was collected from `start` on in `vma`.
    pub(super) fn for_mapping(
        vma: Vma<'a>,
        start: usize,
        migration: &Migration<'_, Collected>,
    ) -> Self {
        Self {
            stock: PageStock::for_mapping(vma, migration.collected_pages().single),
            start,
            refuse_huge: false,
        }
    }

    /// The same, but without huge ones if `refuse_huge`.
    pub(super) fn refusing_huge(self, refuse_huge: bool) -> Self {
        Self {
            refuse_huge,
            ..self
        }
    }

    /// For `wanted` pages that are collected by page frame number, of an owner with this placement.
    pub(super) fn for_owner(placement: Option<Placement>, wanted: usize) -> Self {
        Self {
            stock: PageStock::for_owner(placement, wanted),
            start: 0,
            refuse_huge: false,
        }
    }

    /// Gives a page of the source's size. Returns whether the source has one now; one that was not
    /// collected, or is a hole, needs none.
    pub(super) fn give_whole(&mut self, visit: &mut Visit<'_, '_>) -> bool {
        let address = self.start + visit.index() * PAGE_SIZE;
        let page = match visit.source() {
            Source::Skipped | Source::Hole | Source::HugeHole => return true,
            Source::Page(_) => self.stock.single(address),
            Source::HugePage(_) if self.refuse_huge => return false,
            Source::HugePage(_) => self.stock.huge(address),
        };
        page.map(|page| visit.give(page)).is_ok()
    }

    /// The same, but a huge page is split if there is no huge page for it. Returns how many pages of
    /// the source have no destination.
    pub(super) fn give(&mut self, visit: &mut Visit<'_, '_>) -> usize {
        if self.give_whole(visit) {
            return 0;
        }
        let address = self.start + visit.index() * PAGE_SIZE;
        visit.pages() - visit.give_each(|page| self.stock.single(address + page * PAGE_SIZE).ok())
    }

    /// The same, but without a huge page for a huge one this gives one single page, which makes the
    /// kernel split the mapping, though not the page. Returns whether the source has one now.
    pub(super) fn give_whole_or_first(&mut self, visit: &mut Visit<'_, '_>) -> bool {
        if self.give_whole(visit) {
            return true;
        }
        let address = self.start + visit.index() * PAGE_SIZE;
        match visit.source() {
            Source::HugePage(_) => self.stock.single(address),
            _ => return false,
        }
        .map(|page| visit.give(page))
        .is_ok()
    }
}
