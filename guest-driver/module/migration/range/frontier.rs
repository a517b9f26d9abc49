// SPDX-License-Identifier: GPL-2.0-only

//! How far the threads of a request have come.

use crate::migration::migrate_args::TABLE_BYTES;
use core::ops::Range;
use kernel::sync::atomic::{
    ordering::Relaxed,
    Atomic,
    AtomicFlag, //
};

/// Hands out the addresses of a request, each once.
pub(super) struct Frontier {
    /// The first address that no thread has taken.
    next: Atomic<usize>,
    /// Where the last piece ends.
    end: usize,
    /// Up to where addresses without pages may be passed over, at or behind `end`.
    horizon: usize,
    /// Bytes of a piece.
    piece: usize,
    stop: AtomicFlag,
}

impl Frontier {
    pub(super) fn new(range: Range<usize>, horizon: usize, piece: usize) -> Self {
        Self {
            next: Atomic::new(range.start),
            end: range.end,
            horizon: horizon.max(range.end),
            piece,
            stop: AtomicFlag::new(false),
        }
    }

    /// The next piece. Pieces begin and end at page table boundaries, except the first and the last.
    pub(super) fn take(&self) -> Option<Range<usize>> {
        if self.stop.load(Relaxed) {
            return None;
        }
        let mut start = self.reached();
        loop {
            if start >= self.end {
                return None;
            }
            let table = start & !(TABLE_BYTES - 1);
            let end = table.saturating_add(self.piece).min(self.end);
            match self.next.cmpxchg(start, end, Relaxed) {
                Ok(_) => return Some(start..end),
                Err(other) => start = other,
            }
        }
    }

    /// Takes what no thread has taken of the addresses before `end`. The caller found that they have no
    /// page to move, and counts them.
    pub(super) fn pass(&self, end: usize) -> Option<Range<usize>> {
        let end = end.min(self.horizon);
        let mut start = self.reached();
        loop {
            if start >= end || self.stop.load(Relaxed) {
                return None;
            }
            match self.next.cmpxchg(start, end, Relaxed) {
                Ok(_) => return Some(start..end),
                Err(other) => start = other,
            }
        }
    }

    /// Up to where [`Frontier::pass`] takes addresses.
    pub(super) fn horizon(&self) -> usize {
        self.horizon
    }

    /// The first address that no thread has taken.
    pub(super) fn reached(&self) -> usize {
        self.next.load(Relaxed)
    }

    /// Whether no piece is left to take.
    pub(super) fn is_exhausted(&self) -> bool {
        self.is_stopped() || self.reached() >= self.end
    }

    /// Lets no thread take another piece.
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Whether [`Frontier::stop`] was called.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }
}
