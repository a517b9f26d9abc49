// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copies a range to another one that does not overlap it.

use hmm_protocol::FaultAccess;
use vm_memory::VolatileSlice;

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
        // What is left of the pieces that were looked up last: the longer one is used for several of the other's. To look at
        // the time costs as much as a tenth of a page, so short pieces share that as well.
        let (mut source, mut destination) = (None, None);
        let mut before_look = 0;
        while self.left > 0 {
            if before_look == 0 {
                if memory.should_leave() {
                    return Step::Again;
                }
                before_look = SLICE_BYTES as usize;
            }
            let wanted = self.left.min(SLICE_BYTES);
            let from = match rest(source.take()) {
                Some(span) => span,
                None => match memory.span(self.from, wanted, FaultAccess::READ) {
                    Ok(span) => span,
                    Err(miss) => return missed(miss, self.left),
                },
            };
            let to = match rest(destination.take()) {
                Some(span) => span,
                None => match memory.span(self.to, wanted, FaultAccess::WRITE) {
                    Ok(span) => span,
                    Err(miss) => return missed(miss, self.left),
                },
            };
            let len = from.len().min(to.len()).min(before_look);
            let (Ok((piece, from)), Ok((place, to))) = (from.split_at(len), to.split_at(len))
            else {
                return broken(self.to, FaultAccess::WRITE);
            };
            piece.copy_to_volatile_slice(place);
            (source, destination) = (Some(from), Some(to));
            before_look -= len;
            // Spans are no longer than what was asked for, and the ranges were checked when the job was accepted.
            let copied = len as u64;
            self.to = self.to.saturating_add(copied);
            self.from = self.from.saturating_add(copied);
            self.left = self.left.saturating_sub(copied);
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

/// What is left of a span, if anything is.
fn rest(span: Option<VolatileSlice<'_>>) -> Option<VolatileSlice<'_>> {
    span.filter(|span| !span.is_empty())
}
