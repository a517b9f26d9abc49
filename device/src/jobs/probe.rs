// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Counts the pages that are mapped in a range.

use hmm_protocol::MapFlags;

use super::{
    access::Access,
    work::{End, Step, Work},
};
use crate::mmu::Look;

const PAGE_BYTES: u64 = 4096;
/// Looks between two questions whether to leave.
const LOOKS: u32 = 64;

/// The work of [`hmm_protocol::JobKind::Probe`].
pub(super) struct Probe {
    at: u64,
    left: u64,
    seen: u64,
    mapped: u64,
    wanted: MapFlags,
}

impl Probe {
    /// `start` and `len` are multiples of 4096, and `wanted` has only [`MapFlags`].
    pub(super) fn new(start: u64, len: u64, wanted: u64) -> Self {
        Self {
            at: start,
            left: len,
            seen: 0,
            mapped: 0,
            wanted: MapFlags((wanted & u64::from(MapFlags::ALL.0)) as u8),
        }
    }
}

impl Work for Probe {
    fn run(&mut self, memory: &dyn Access) -> Step {
        while self.left > 0 {
            if memory.should_leave() {
                return Step::Again;
            }
            for _ in 0..LOOKS {
                if self.left == 0 {
                    break;
                }
                let Look { flags, bytes } = memory.look(self.at);
                // Mappings are made of pages, so what is the same for one byte is so up to the end of its page.
                let bytes = bytes.max(1).checked_next_multiple_of(PAGE_BYTES);
                let bytes = bytes.unwrap_or(self.left).min(self.left);
                let pages = bytes / PAGE_BYTES;
                if flags.contains(MapFlags::READ) && flags.contains(self.wanted) {
                    self.mapped = self.mapped.saturating_add(pages);
                }
                self.seen = self.seen.saturating_add(pages);
                self.at = self.at.saturating_add(bytes);
                self.left = self.left.saturating_sub(bytes);
            }
        }
        Step::Ended(End::OK)
    }

    fn amount(&self) -> u64 {
        self.seen
    }

    fn result(&self) -> u64 {
        self.mapped
    }
}
