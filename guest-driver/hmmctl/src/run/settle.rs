// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The policy `to-device`: memory that keeps coming home is moved less and less often.

use std::collections::HashMap;
use std::ops::Range;

/// Most passes between two moves of a mapping.
const LONGEST_PAUSE: u32 = 64;

/// A mapping of a process: (pid, start, end). One that grows or shrinks becomes another.
type Key = (i32, u64, u64);

#[derive(Clone, Copy, Debug)]
struct Rest {
    /// Passes between two moves.
    pause: u32,
    /// Passes until the next move.
    left: u32,
    /// Whether the current pass has met the mapping.
    met: bool,
}

/// When each mapping is to be moved again.
#[derive(Debug, Default)]
pub(super) struct Settle {
    rests: HashMap<Key, Rest>,
}

impl Settle {
    /// Whether this pass is to move the mapping. To be asked once a pass.
    pub(super) fn is_due(&mut self, pid: i32, range: &Range<u64>) -> bool {
        let Some(rest) = self.rests.get_mut(&(pid, range.start, range.end)) else {
            return true;
        };
        rest.met = true;
        rest.left = rest.left.saturating_sub(1);
        rest.left == 0
    }

    /// Notes how many pages a move took to the device: those of a mapping that was moved before had
    /// come home, because the program uses them.
    pub(super) fn moved(&mut self, pid: i32, range: &Range<u64>, pages: u64) {
        let rest = self
            .rests
            .entry((pid, range.start, range.end))
            .and_modify(|rest| {
                rest.pause = if pages > 0 {
                    (rest.pause * 2).min(LONGEST_PAUSE)
                } else {
                    1
                };
            })
            .or_insert(Rest {
                pause: 1,
                left: 1,
                met: true,
            });
        rest.left = rest.pause;
        rest.met = true;
    }

    /// Ends a pass: mappings that it did not meet are forgotten.
    pub(super) fn end_pass(&mut self) {
        self.rests.retain(|_, rest| std::mem::take(&mut rest.met));
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_PAUSE, Settle};

    const PID: i32 = 5;

    /// Runs passes over one mapping; the passes in which it was moved.
    fn moves(settle: &mut Settle, passes: u32, pages: u64) -> Vec<u32> {
        let range = 0x1000..0x9000;
        let mut moves = Vec::new();
        for pass in 0..passes {
            if settle.is_due(PID, &range) {
                moves.push(pass);
                settle.moved(PID, &range, pages);
            }
            settle.end_pass();
        }
        moves
    }

    #[test]
    fn memory_in_use_is_moved_less_and_less_often() {
        let moves = moves(&mut Settle::default(), 500, 3);
        assert_eq!(moves[..8], [0, 1, 3, 7, 15, 31, 63, 127]);
        let pauses: Vec<u32> = moves.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.iter().all(|&pause| pause <= LONGEST_PAUSE));
        assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
    }

    #[test]
    fn memory_at_rest_is_looked_at_in_every_pass() {
        let mut settle = Settle::default();
        moves(&mut settle, 40, 3);
        assert_eq!(moves(&mut settle, 40, 0).len(), 40 - 23);
    }

    #[test]
    fn a_mapping_that_grows_is_moved_at_once() {
        let mut settle = Settle::default();
        moves(&mut settle, 10, 3);
        assert!(!settle.is_due(PID, &(0x1000..0x9000)));
        assert!(settle.is_due(PID, &(0x1000..0xa000)));
    }

    #[test]
    fn mappings_that_are_gone_are_forgotten() {
        let mut settle = Settle::default();
        moves(&mut settle, 10, 3);
        settle.end_pass();
        assert!(settle.rests.is_empty());
        assert!(settle.is_due(PID, &(0x1000..0x9000)));
    }
}
