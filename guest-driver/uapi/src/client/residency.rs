// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Where pages are.

use crate::{PageState, Residency};
use core::ops::AddAssign;

/// Pages of a range by the side they are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidencyCounts {
    /// Pages in system memory.
    pub system_pages: u64,
    /// Pages on the device that was asked.
    pub device_pages: u64,
    /// Pages that are on neither: no mapping, never touched, swapped, or on another device.
    pub other_pages: u64,
}

impl ResidencyCounts {
    pub(super) fn from_reply(reply: &Residency) -> Self {
        Self {
            system_pages: reply.system_pages,
            device_pages: reply.device_pages,
            other_pages: reply.other_pages,
        }
    }

    /// All pages of the range.
    pub const fn total(&self) -> u64 {
        self.system_pages + self.device_pages + self.other_pages
    }
}

impl AddAssign for ResidencyCounts {
    fn add_assign(&mut self, other: Self) {
        self.system_pages += other.system_pages;
        self.device_pages += other.device_pages;
        self.other_pages += other.other_pages;
    }
}

/// Where each page of a range is, in the order of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidencyMap {
    bytes: Vec<u8>,
}

impl ResidencyMap {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// The state of each page. A state that this version does not know is
    /// [`PageState::None`]: a place that it cannot name.
    pub fn states(&self) -> impl ExactSizeIterator<Item = PageState> + '_ {
        self.bytes.iter().map(|&byte| state(byte))
    }

    /// Runs of pages in the same state: first page, pages, state.
    pub fn runs(&self) -> Vec<(usize, usize, PageState)> {
        let mut runs: Vec<(usize, usize, PageState)> = Vec::new();
        for (page, state) in self.states().enumerate() {
            match runs.last_mut() {
                Some((_, pages, last)) if *last == state => *pages += 1,
                _ => runs.push((page, 1, state)),
            }
        }
        runs
    }
}

fn state(byte: u8) -> PageState {
    const SYSTEM: u8 = PageState::System as u8;
    const DEVICE: u8 = PageState::Device as u8;
    match byte {
        SYSTEM => PageState::System,
        DEVICE => PageState::Device,
        _ => PageState::None,
    }
}

#[cfg(test)]
mod tests {
    use super::ResidencyMap;
    use crate::PageState;

    #[test]
    fn runs_cover_every_page_once() {
        let map = ResidencyMap::new(vec![2, 2, 1, 0, 9, 2]);
        assert_eq!(
            map.runs(),
            [
                (0, 2, PageState::Device),
                (2, 1, PageState::System),
                (3, 2, PageState::None),
                (5, 1, PageState::Device),
            ]
        );
    }

    #[test]
    fn an_empty_map_has_no_run() {
        assert_eq!(ResidencyMap::new(Vec::new()).runs(), []);
    }
}
