// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Counts of pages that did not move.

use crate::{SkipReason, SKIP_REASONS};
use core::ops::AddAssign;

/// Pages that did not move, counted by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped([u64; SKIP_REASONS]);

impl Skipped {
    /// The name under which slots are shown that this version has no reason for: a newer driver
    /// may know more reasons than the program that asks it.
    pub const UNKNOWN: &'static str = "unknown";

    /// Wraps the array of an ioctl structure.
    pub const fn new(pages: [u64; SKIP_REASONS]) -> Self {
        Self(pages)
    }

    /// Pages skipped for this reason.
    pub const fn get(&self, reason: SkipReason) -> u64 {
        self.0[reason as usize]
    }

    /// Pages skipped for reasons that this version does not know.
    pub fn unknown(&self) -> u64 {
        self.0[SkipReason::ALL.len()..].iter().sum()
    }

    /// Pages skipped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred, by name, with their pages.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        SkipReason::ALL
            .iter()
            .map(|&reason| (reason.name(), self.get(reason)))
            .chain([(Self::UNKNOWN, self.unknown())])
            .filter(|&(_, pages)| pages > 0)
    }
}

impl AddAssign for Skipped {
    fn add_assign(&mut self, other: Self) {
        for (sum, pages) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(pages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Skipped;
    use crate::{SkipReason, SKIP_REASONS};

    #[test]
    fn slots_of_a_newer_driver_are_counted_as_unknown() {
        let mut pages = [0; SKIP_REASONS];
        pages[SkipReason::Pinned as usize] = 3;
        pages[SKIP_REASONS - 1] = 4;
        let skipped = Skipped::new(pages);
        assert_eq!(skipped.total(), 7);
        assert_eq!(
            skipped.named().collect::<Vec<_>>(),
            [("pinned", 3), (Skipped::UNKNOWN, 4)]
        );
    }

    #[test]
    fn sums_keep_the_reasons_apart() {
        let mut hole = [0; SKIP_REASONS];
        hole[SkipReason::Hole as usize] = 1;
        let mut file = [0; SKIP_REASONS];
        file[SkipReason::File as usize] = 2;
        let mut sum = Skipped::new(hole);
        sum += Skipped::new(file);
        sum += Skipped::new(file);
        assert_eq!(sum.get(SkipReason::Hole), 1);
        assert_eq!(sum.get(SkipReason::File), 4);
    }
}
