// SPDX-License-Identifier: GPL-2.0-only

//! What becomes of the pages of one batch, as it comes to be known.

use super::super::Tally;
use crate::stats::Stats;
use hmm_uapi::SkipReason;

/// Counts the pages of a batch.
pub(in crate::migration) struct Account<'a> {
    pub(in crate::migration) stats: &'a Stats,
    pub(super) tally: &'a mut Tally,
    /// Set for pages that the kernel did not collect.
    pub(super) missing: &'a mut [bool],
}

impl Account<'_> {
    /// Counts pages that did not move.
    pub(in crate::migration) fn skip(&mut self, reason: SkipReason, pages: usize) {
        self.tally.skip(self.stats, reason, pages as u64);
    }

    /// The kernel did not collect the page; the reason is found out later.
    pub(in crate::migration) fn not_collected(&mut self, page: usize) {
        if let Some(mark) = self.missing.get_mut(page) {
            *mark = true;
        }
    }
}
