// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fills a range with a pattern of 8 bytes.

use hmm_protocol::FaultAccess;

use super::{
    access::Access,
    work::{End, Step, Work, missed},
};

/// Bytes between two looks at what else is to be done.
const SLICE_BYTES: u64 = 64 << 10;
/// Bytes of the pattern that are kept to copy from; a multiple of 8 that fits the first cache.
const BLOCK_BYTES: usize = 4096;

/// The work of [`hmm_protocol::JobKind::Fill`].
pub(super) struct Fill {
    at: u64,
    left: u64,
    done: u64,
    /// The pattern over and over, and 7 bytes more so that a copy may begin at each of its bytes.
    block: Box<[u8; BLOCK_BYTES + 8]>,
}

impl Fill {
    pub(super) fn new(start: u64, len: u64, pattern: u64) -> Self {
        let mut block = Box::new([0; BLOCK_BYTES + 8]);
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&pattern.to_le_bytes());
        }
        Self {
            at: start,
            left: len,
            done: 0,
            block,
        }
    }
}

impl Work for Fill {
    fn run(&mut self, memory: &dyn Access) -> Step {
        // To look costs as much as a tenth of a page, so short pieces share a look.
        let mut before_look = 0;
        while self.left > 0 {
            if before_look == 0 {
                if memory.should_leave() {
                    return Step::Again;
                }
                before_look = SLICE_BYTES;
            }
            let wanted = self.left.min(before_look);
            let span = match memory.span(self.at, wanted, FaultAccess::WRITE) {
                Ok(span) => span,
                Err(miss) => return missed(miss, self.left),
            };
            // All pieces but the last are whole blocks, so each begins at the same byte of the pattern.
            let phase = (self.done % 8) as usize;
            let block = &self.block[phase..phase + BLOCK_BYTES];
            let mut rest = span.len();
            while let Some(piece) = (rest > 0)
                .then(|| span.offset(span.len() - rest).ok())
                .flatten()
            {
                piece.copy_from(&block[..rest.min(BLOCK_BYTES)]);
                rest -= rest.min(BLOCK_BYTES);
            }
            let filled = span.len() as u64;
            // A span is no longer than what was asked for, and the range was checked when the job was accepted.
            self.at = self.at.saturating_add(filled);
            self.left = self.left.saturating_sub(filled);
            before_look = before_look.saturating_sub(filled);
            self.done = self.done.saturating_add(filled);
        }
        Step::Ended(End::OK)
    }

    fn amount(&self) -> u64 {
        self.done
    }

    fn result(&self) -> u64 {
        0
    }
}
