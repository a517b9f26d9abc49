// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Values of fields: mostly ones that are allowed, some at a boundary, some random.

use crate::cases::support::memory::PAGE;
use crate::cases::support::random::Random;
use std::ops::Range;

/// Ranges up to this size may be populated: a vast hole would take all device memory and long.
const POPULATED_MOST: u64 = 64 << 20;

/// What the values are chosen from.
pub(super) struct Values {
    pub(super) random: Random,
    /// Addresses of mappings, and of places where mappings come and go.
    pub(super) areas: Vec<Range<u64>>,
    /// Processes whose memory is the case's own.
    pub(super) pids: Vec<i32>,
}

impl Values {
    /// True once in `limit` times.
    pub(super) fn rarely(&mut self, limit: usize) -> bool {
        self.random.below(limit) == 0
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.random.below(values.len())]
    }

    /// A number that is mostly one of `usual`.
    pub(super) fn word(&mut self, usual: &[u32]) -> u32 {
        match self.random.below(16) {
            0 => self.one_of(&[1, 2, 3, 4, 7, 8, 1 << 31, u32::MAX - 1, u32::MAX]),
            1 => self.random.next() as u32,
            _ => self.one_of(usual),
        }
    }

    /// A number of bytes.
    pub(super) fn bytes(&mut self) -> u64 {
        let page = PAGE as u64;
        match self.random.below(4) {
            0 => self.random.next(),
            1 => self.one_of(&[
                0,
                1,
                page - 1,
                page,
                u64::MAX,
                u64::MAX - 1,
                u64::MAX - page + 1,
            ]),
            _ => self.random.below(1 << 14) as u64 * page,
        }
    }

    pub(super) fn pid(&mut self) -> i32 {
        match self.random.below(24) {
            // 2 is a kernel thread. That of init is not the case's to change.
            0 => self.one_of(&[-1, i32::MIN, i32::MAX, 2]),
            1 => i32::from(self.random.next() as i16).min(-1),
            2..10 => {
                let pids = std::mem::take(&mut self.pids);
                let pid = self.one_of(&pids);
                self.pids = pids;
                pid
            }
            _ => 0,
        }
    }

    fn address(&mut self) -> u64 {
        let page = PAGE as u64;
        match self.random.below(12) {
            0 => self.random.next(),
            1 => self.random.next() & !(page - 1),
            2 => self.one_of(&[
                0,
                1,
                page,
                (1 << 47) - page,
                1 << 47,
                1 << 56,
                1 << 63,
                u64::MAX - page + 1,
                u64::MAX,
                0xffff_8880_0000_0000,
            ]),
            _ => {
                let area = self.random.below(self.areas.len());
                let Range { start, end } = self.areas[area].clone();
                let pages = (end - start) / page + 3;
                // Also a page in front of it and one behind.
                (start - page) + (self.random.next() >> 16) % pages * page
            }
        }
    }

    /// A range, which mostly lies within one mapping.
    pub(super) fn range(&mut self) -> (u64, u64) {
        let (one, other) = match self.random.below(4) {
            0 => (self.address(), self.address()),
            1 => {
                let area = self.random.below(self.areas.len());
                (self.areas[area].start, self.areas[area].end)
            }
            _ => {
                let start = self.address();
                let pages = 1 + self.random.below(700) as u64;
                (start, start.wrapping_add(pages * PAGE as u64))
            }
        };
        // Turned round only now and then.
        match self.rarely(16) {
            true => (one, other),
            false => (one.min(other), one.max(other)),
        }
    }

    /// Flags of a move of this range.
    pub(super) fn move_flags(&mut self, direction: u32, (start, end): (u64, u64)) -> u32 {
        let usual: &[u32] = match direction {
            2 => &[0],
            _ => &[0, 1, 2, 3],
        };
        let flags = self.word(usual);
        match end.saturating_sub(start) > POPULATED_MOST {
            true => flags & !1,
            false => flags,
        }
    }
}
