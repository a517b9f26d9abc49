// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Adds atomically to each word of a range.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hmm_protocol::FaultAccess;
use vm_memory::{VolatileMemory, VolatileSlice};

use super::{
    access::Access,
    work::{End, Step, Work, broken, missed},
};

/// Bytes between two looks at what else is to be done: an atomic addition that misses the caches takes some 100 ns.
const SLICE_BYTES: u64 = 1024;

/// The work of [`hmm_protocol::JobKind::AtomicAdd`].
pub(super) struct AtomicAdd {
    at: u64,
    left: u64,
    done: u64,
    add: u64,
    width: u64,
    first: u64,
}

impl AtomicAdd {
    /// `width` is 4 or 8, and `start` a multiple of it.
    pub(super) fn new(start: u64, words: u64, add: u64, width: u64) -> Self {
        Self {
            at: start,
            left: words,
            done: 0,
            add,
            width,
            first: 0,
        }
    }

    /// Adds to the word at `offset` and returns what it was.
    fn add(&self, span: &VolatileSlice<'_>, offset: usize) -> Option<u64> {
        // Guests are little-endian, and so is every processor that this device runs on; to_le() says what is meant.
        if self.width == 4 {
            let word: &AtomicU32 = span.get_atomic_ref(offset).ok()?;
            let add = (self.add as u32).to_le();
            return Some(u64::from(word.fetch_add(add, Ordering::SeqCst)));
        }
        let word: &AtomicU64 = span.get_atomic_ref(offset).ok()?;
        Some(word.fetch_add(self.add.to_le(), Ordering::SeqCst))
    }
}

impl Work for AtomicAdd {
    fn run(&mut self, memory: &dyn Access) -> Step {
        while self.left > 0 {
            if memory.should_leave() {
                return Step::Again;
            }
            // The range was checked when the job was accepted, so its bytes are a number of 64 bits.
            let bytes = self.left.saturating_mul(self.width);
            let span = match memory.span(self.at, bytes.min(SLICE_BYTES), FaultAccess::ATOMIC) {
                Ok(span) => span,
                Err(miss) => return missed(miss, bytes),
            };
            let width = self.width as usize;
            let words = span.len() / width;
            // Pages are aligned better than words, so a word is never cut by the end of a span.
            if words == 0 {
                return broken(self.at, FaultAccess::ATOMIC);
            }
            for word in 0..words {
                let Some(before) = self.add(&span, word * width) else {
                    return broken(self.at, FaultAccess::ATOMIC);
                };
                if self.done == 0 {
                    self.first = before;
                }
                self.done = self.done.saturating_add(1);
                self.left = self.left.saturating_sub(1);
                self.at = self.at.saturating_add(self.width);
            }
        }
        Step::Ended(End::OK)
    }

    fn amount(&self) -> u64 {
        self.done
    }

    fn result(&self) -> u64 {
        self.first
    }
}
