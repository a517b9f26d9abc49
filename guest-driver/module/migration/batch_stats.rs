// SPDX-License-Identifier: GPL-2.0-only

//! Counts what becomes of the pages of one batch.

use super::tally::Tally;
use crate::stats::Stats;
use hmm_uapi::SkipReason;

/// Counts the pages of a batch.
pub(super) struct BatchStats<'a> {
    pub(super) stats: &'a Stats,
    pub(super) tally: &'a mut Tally,
    /// Set for pages that the kernel did not collect.
    pub(super) missing: &'a mut [bool],
}

impl BatchStats<'_> {
    /// Counts pages that did not move.
    pub(super) fn skip(&mut self, reason: SkipReason, pages: usize) {
        self.tally.skip(self.stats, reason, pages as u64);
    }

    /// The kernel did not collect the page; the reason is found out later.
    pub(super) fn not_collected(&mut self, page: usize) {
        if let Some(mark) = self.missing.get_mut(page) {
            *mark = true;
        }
    }
}
