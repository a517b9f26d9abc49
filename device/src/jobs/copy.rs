// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copies a range to another one that does not overlap it.

use hmm_protocol::FaultAccess;

use super::{
    access::Access,
    work::{End, Step, Work, broken, missed},
};

/// Bytes between two looks at what else is to be done.
const SLICE_BYTES: u64 = 64 << 10;

/// The work of [`hmm_protocol::JobKind::Copy`].
pub(super) struct Copy {
    to: u64,
    from: u64,
    left: u64,
    done: u64,
}

impl Copy {
    pub(super) fn new(to: u64, from: u64, len: u64) -> Self {
        Self {
            to,
            from,
            left: len,
            done: 0,
        }
    }
}

impl Work for Copy {
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
            let source = match memory.span(self.from, wanted, FaultAccess::READ) {
                Ok(span) => span,
                Err(miss) => return missed(miss, self.left),
            };
            let wanted = source.len() as u64;
            let destination = match memory.span(self.to, wanted, FaultAccess::WRITE) {
                Ok(span) => span,
                Err(miss) => return missed(miss, self.left),
            };
            let Ok(source) = source.subslice(0, destination.len()) else {
                return broken(self.to, FaultAccess::WRITE);
            };
            source.copy_to_volatile_slice(destination);
            let copied = source.len() as u64;
            // A span is no longer than what was asked for, and the ranges were checked when the job was accepted.
            self.to = self.to.saturating_add(copied);
            self.from = self.from.saturating_add(copied);
            self.left = self.left.saturating_sub(copied);
            before_look = before_look.saturating_sub(copied);
            self.done = self.done.saturating_add(copied);
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
