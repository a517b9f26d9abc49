// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The CRC-32C of a range.

use hmm_protocol::FaultAccess;

use super::{
    access::Access,
    work::{End, Step, Work, missed},
};

/// Bytes that are read into private memory at a time: the CRC is not computed where a guest may write meanwhile.
const BLOCK_BYTES: usize = 16 << 10;

/// The work of [`hmm_protocol::JobKind::Crc32c`].
pub(super) struct Crc32c {
    at: u64,
    left: u64,
    done: u64,
    crc: u32,
    block: Box<[u8; BLOCK_BYTES]>,
}

impl Crc32c {
    /// `before` is at most 32 bits.
    pub(super) fn new(start: u64, len: u64, before: u64) -> Self {
        Self {
            at: start,
            left: len,
            done: 0,
            crc: u32::try_from(before).unwrap_or(u32::MAX),
            block: Box::new([0; BLOCK_BYTES]),
        }
    }
}

impl Work for Crc32c {
    fn run(&mut self, memory: &dyn Access) -> Step {
        while self.left > 0 {
            if memory.should_leave() {
                return Step::Again;
            }
            let wanted = self.left.min(BLOCK_BYTES as u64);
            let span = match memory.span(self.at, wanted, FaultAccess::READ) {
                Ok(span) => span,
                Err(miss) => return missed(miss, self.left),
            };
            let read = span.copy_to(&mut self.block[..]);
            self.crc = crc32c::crc32c_append(self.crc, &self.block[..read]);
            let read = read as u64;
            // A span is no longer than what was asked for, and the range was checked when the job was accepted.
            self.at = self.at.saturating_add(read);
            self.left = self.left.saturating_sub(read);
            self.done = self.done.saturating_add(read);
        }
        Step::Ended(End::OK)
    }

    fn amount(&self) -> u64 {
        self.done
    }

    fn result(&self) -> u64 {
        u64::from(self.crc)
    }
}
