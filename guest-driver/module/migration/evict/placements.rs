// SPDX-License-Identifier: GPL-2.0-only

//! Where the owners of device pages may have them in system memory, by page frame number.

use crate::{
    migration::DeviceMemory,
    sys::{
        address_space::anon_vma::AnonVma,
        device_memory::placement::Placement, //
    }, //
};
use core::ops::Range;
use kernel::prelude::*;

/// The placements of a block's pages, as runs of pages with the same owner.
pub(super) struct Placements {
    /// Index of the first page of each run, and its placement.
    runs: KVec<(usize, Option<Placement>)>,
}

impl Placements {
    /// Asks the reverse mapping of each page of `pages`, before it is collected. Without memory for
    /// the answer any node will do. On a system with one node this does nothing.
    pub(super) fn of(memory: &DeviceMemory, pages: Range<usize>) -> Self {
        let mut runs = KVec::new();
        if !Placement::matters() {
            return Self { runs };
        }
        let mut last: Option<AnonVma> = None;
        for index in pages {
            let Some(page) = memory.page_in_use(index) else {
                continue;
            };
            let Some(anon_vma) = AnonVma::of(page) else {
                continue;
            };
            if last.as_ref().is_some_and(|last| last.is(&anon_vma)) {
                continue;
            }
            let owner = anon_vma.mapping(page, 0).and_then(|mapping| mapping.mm);
            let placement = owner.and_then(|mm| Placement::of(&mm));
            if runs.push((index, placement), GFP_KERNEL).is_err() {
                break;
            }
            last = Some(anon_vma);
        }
        Self { runs }
    }

    /// The placement of the page at `index`, if another run than that of the last call begins at or
    /// before it. Pages are asked for in ascending order.
    pub(super) fn take(&mut self, index: usize) -> Option<Option<Placement>> {
        let mut current = None;
        while self.runs.first().is_some_and(|(first, _)| *first <= index) {
            current = self.runs.remove(0).ok().map(|(_, placement)| placement);
        }
        current
    }
}
