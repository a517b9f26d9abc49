// SPDX-License-Identifier: GPL-2.0-only

//! Pages that were busy for the moment, to be tried again.
//!
//! Reclaim, compaction and the kernel's own per-CPU lists refer to pages, isolate or lock them, and
//! release them soon. The kernel's own migrations try such pages again, too.

use core::{
    mem::{
        replace,
        take, //
    },
    ops::Range, //
};
use hmm_uapi::SkipReason;
use kernel::prelude::*;

/// Runs of such pages that are remembered; more are counted as skipped at once.
const RUNS: usize = 64;

/// Addresses of pages that are to be tried again.
pub(crate) struct RetryRuns {
    runs: KVec<Range<usize>>,
    /// An empty vector for the next round.
    spare: KVec<Range<usize>>,
    /// Whether there is a next round.
    is_open: bool,
}

impl RetryRuns {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            runs: KVec::with_capacity(RUNS, GFP_KERNEL)?,
            spare: KVec::with_capacity(RUNS, GFP_KERNEL)?,
            is_open: false,
        })
    }

    /// Forgets what an earlier walk left.
    pub(crate) fn forget(&mut self) {
        self.runs.clear();
    }

    /// From now on pages are remembered, or no more.
    pub(crate) fn set_open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }

    /// Remembers a page (its addresses) that did not move for `reason`, if another try may help.
    /// Otherwise it is to be counted.
    pub(crate) fn remember(&mut self, reason: SkipReason, page: Range<usize>) -> bool {
        if !self.is_open || !matches!(reason, SkipReason::Busy | SkipReason::Pinned) {
            return false;
        }
        match self.runs.last_mut() {
            Some(last) if last.end == page.start => {
                last.end = page.end;
                true
            }
            _ => self.runs.push_within_capacity(page).is_ok(),
        }
    }

    /// What was remembered since the last time; it goes back with [`Self::give_back`].
    pub(crate) fn take(&mut self) -> KVec<Range<usize>> {
        replace(&mut self.runs, take(&mut self.spare))
    }

    /// Takes a vector back.
    pub(crate) fn give_back(&mut self, mut runs: KVec<Range<usize>>) {
        runs.clear();
        self.spare = runs;
    }
}
