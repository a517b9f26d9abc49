// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Which pages a CPU fault takes along.
//!
//! Who touches memory here and there gets the page that it waits for and nothing else, which is
//! what costs it least. Who goes on near where it left off gets 64 KiB, and twice as much with
//! every further fault.

use core::ops::Range;

/// Bytes that a fault brings home when nothing is known of who reads: one page.
pub const WINDOW_LEAST: usize = 4 << 10;
/// Bytes of the second fault of somebody who reads in order, at least.
const WINDOW_SECOND: usize = 64 << 10;
/// A fault within so many bytes of the last window goes on where that ended.
const NEAR: usize = 64 << 10;
/// Most bytes that a fault takes along. Windows do not cross a multiple of it.
pub const WINDOW_MOST: usize = 2 << 20;

/// The bounds of a window's size, bytes, powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowBounds {
    /// For the first fault.
    pub least: usize,
    /// For a reader that goes on and on.
    pub most: usize,
}

impl WindowBounds {
    /// What holds where nobody asked for anything else.
    pub const DEFAULT: Self = Self {
        least: WINDOW_LEAST,
        most: WINDOW_MOST,
    };

    /// Only the page of the fault, of `bytes` (a power of two).
    pub const fn exactly(bytes: usize) -> Self {
        Self {
            least: bytes,
            most: bytes,
        }
    }
}

/// Somebody who reads a range of addresses in order, up or down.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// The address space, as a number; 0 for a stream that does not exist.
    space: usize,
    /// What the last fault took.
    last: Span,
    size: usize,
    used: u64,
}

/// Addresses, from the first to one past the last.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
}

/// What is known of those who read, for up to `N` of them at once.
#[derive(Debug)]
pub struct Windows<const N: usize> {
    streams: [Stream; N],
    clock: u64,
}

impl<const N: usize> Windows<N> {
    /// Nothing is known.
    pub const fn new() -> Self {
        Self {
            streams: [Stream {
                space: 0,
                last: Span { start: 0, end: 0 },
                size: 0,
                used: 0,
            }; N],
            clock: 0,
        }
    }

    /// The addresses that a fault at `address` of address space `space` (a number, not 0) takes
    /// along. They contain `address` and lie within `mapping`, which must contain it, too. All are
    /// bytes; `address` and `mapping` are page aligned.
    pub fn of_fault(
        &mut self,
        space: usize,
        address: usize,
        mapping: Range<usize>,
        bounds: WindowBounds,
    ) -> Range<usize> {
        self.clock += 1;
        let clock = self.clock;
        let least = bounds.least.clamp(1, WINDOW_MOST);
        let most = bounds.most.clamp(least, WINDOW_MOST);

        let mut oldest = 0;
        let mut oldest_use = u64::MAX;
        let mut found = None;
        for (index, stream) in self.streams.iter().enumerate() {
            if let Some(direction) = stream.goes_on_at(space, address) {
                found = Some((index, direction));
                break;
            }
            if stream.used < oldest_use {
                (oldest, oldest_use) = (index, stream.used);
            }
        }
        let (index, size, direction) = match found {
            Some((index, direction)) => {
                let size = self.streams.get(index).map_or(least, |stream| stream.size);
                let size = size.saturating_mul(2).max(WINDOW_SECOND);
                (index, size.clamp(least, most), direction)
            }
            None => (oldest, least, Direction::Up),
        };

        // Windows begin, or end if they go down, at a multiple of a small one.
        let unit = size.min(WINDOW_SECOND).max(least);
        let first = address & !(unit - 1);
        let table = address & !(WINDOW_MOST - 1);
        let table = table..table.saturating_add(WINDOW_MOST);
        let window = match direction {
            Direction::Up => first..first.saturating_add(size),
            Direction::Down => {
                let end = first.saturating_add(unit);
                end.saturating_sub(size)..end
            }
        };
        let start = window.start.max(table.start).max(mapping.start);
        let end = window.end.min(table.end).min(mapping.end);
        if let Some(stream) = self.streams.get_mut(index) {
            *stream = Stream {
                space,
                last: Span { start, end },
                size,
                used: clock,
            };
        }
        start..end
    }
}

impl<const N: usize> Default for Windows<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl Stream {
    /// Whether a fault at `address` is about where the stream would be next.
    fn goes_on_at(&self, space: usize, address: usize) -> Option<Direction> {
        if self.space != space || self.space == 0 {
            return None;
        }
        if (self.last.end..self.last.end.saturating_add(NEAR)).contains(&address) {
            Some(Direction::Up)
        } else if (self.last.start.saturating_sub(NEAR)..self.last.start).contains(&address) {
            Some(Direction::Down)
        } else {
            None
        }
    }
}
