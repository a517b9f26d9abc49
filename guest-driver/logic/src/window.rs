// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Which pages a CPU fault migrates back with the faulting page.
//!
//! A random access gets the faulting page alone, which is the cheapest answer. A fault near the end
//! of the last window belongs to a sequential stream: it gets 64 KiB, and each further fault of the
//! stream twice as much. When the window has its full size, the range behind it is prefetched as well.

use core::ops::Range;

/// Window of a fault that belongs to no stream, bytes: one page.
pub const WINDOW_LEAST: usize = 4 << 10;
/// Smallest window of the second fault of a stream, bytes.
const WINDOW_SECOND: usize = 64 << 10;
/// A fault within so many bytes of a stream's last window continues the stream.
const NEAR: usize = 64 << 10;
/// Largest window, bytes. A window does not cross a multiple of it.
pub const WINDOW_MOST: usize = 2 << 20;
/// Largest prefetch behind a window, bytes: large enough that the faults between two prefetches cost
/// little, and never more than the stream has read in order so far.
const AHEAD_MOST: usize = 32 << 20;
/// A fault inside a stream's prefetched range counts as the stream's own for so many faults. A stream
/// that always overtakes its prefetch has fewer.
const WITHIN_FAULTS: u64 = 2 * (AHEAD_MOST / WINDOW_MOST) as u64;

/// The bounds of a window's size, bytes, powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowBounds {
    /// For the first fault.
    pub least: usize,
    /// For a stream that continues.
    pub most: usize,
}

impl WindowBounds {
    /// For memory without advice.
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

/// What a fault migrates back. Both are address ranges in bytes, page aligned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Migrated by the fault itself; contains the faulting address.
    pub now: Range<usize>,
    /// To be prefetched afterwards, in the background; empty for most faults. It continues `now`
    /// upwards or downwards.
    pub ahead: Range<usize>,
}

/// A sequential access, upwards or downwards.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// The address space, as a number; 0 for a stream that does not exist.
    space: usize,
    /// The last window, with the range prefetched behind it.
    last: Span,
    size: usize,
    /// Bytes that were prefetched.
    ahead: usize,
    /// The number of the last fault that continued it.
    used: u64,
    /// Whether a fault continued it since the clock hand last passed.
    goes_on: bool,
}

/// Addresses, from the first to one past the last.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
}

/// The addresses near a stream.
#[derive(Clone, Copy, Debug)]
struct Near {
    start: usize,
    bytes: usize,
}

impl Near {
    const NOWHERE: Self = Self { start: 0, bytes: 0 };

    /// The addresses near `span`. The start may wrap below zero.
    fn of(span: Span) -> Self {
        Self {
            start: span.start.wrapping_sub(NEAR),
            bytes: span.end.saturating_sub(span.start).saturating_add(2 * NEAR),
        }
    }

    #[inline(always)]
    fn contains(self, address: usize) -> bool {
        address.wrapping_sub(self.start) < self.bytes
    }
}

/// Up to `N` streams.
#[derive(Debug)]
pub struct Windows<const N: usize> {
    /// For each stream the addresses at which a fault may belong to it. Every fault scans them all, so
    /// they are compact.
    near: [Near; N],
    streams: [Stream; N],
    clock: u64,
    /// The clock hand: the stream that is considered for replacement next.
    hand: usize,
}

impl<const N: usize> Windows<N> {
    /// No stream.
    pub const fn new() -> Self {
        Self {
            near: [Near::NOWHERE; N],
            streams: [Stream {
                space: 0,
                last: Span { start: 0, end: 0 },
                size: 0,
                ahead: 0,
                used: 0,
                goes_on: false,
            }; N],
            clock: 0,
            hand: 0,
        }
    }

    /// The window of a fault at `address` (bytes, page aligned) in address space `space` (a number, not
    /// 0). It lies within `mapping` (bytes, page aligned), which must contain `address`.
    pub fn of_fault(
        &mut self,
        space: usize,
        address: usize,
        mapping: Range<usize>,
        bounds: WindowBounds,
    ) -> Window {
        self.clock += 1;
        let least = bounds.least.clamp(1, WINDOW_MOST);
        let most = bounds.most.clamp(least, WINDOW_MOST);
        let (index, place) = self.find(space, address);
        let known = self.streams.get(index).copied();
        let known = known.filter(|_| !matches!(place, Place::New));
        let size = match (known, place) {
            (Some(stream), Place::Next(_)) => stream.size.saturating_mul(2).max(WINDOW_SECOND),
            // The stream overtook its prefetch.
            (Some(stream), _) => stream.size,
            (None, _) => least,
        };
        let size = size.clamp(least, most);
        let direction = match place {
            Place::Next(direction) => direction,
            Place::Within | Place::New => Direction::Up,
        };
        let now = now(address, &mapping, size, least, direction);

        let mut stream = Stream {
            space,
            last: Span {
                start: now.start,
                end: now.end,
            },
            size,
            ahead: 0,
            used: self.clock,
            goes_on: known.is_some(),
        };
        let mut ahead = now.end..now.end;
        match (known, place) {
            (Some(known), Place::Within) => {
                (stream.last, stream.ahead) = (known.last, known.ahead);
                stream.used = known.used;
            }
            (Some(known), _) if known.size.min(size) == WINDOW_MOST => {
                stream.ahead = known.ahead.saturating_mul(2).clamp(WINDOW_MOST, AHEAD_MOST);
                match direction {
                    Direction::Up => {
                        let end = now.end.saturating_add(stream.ahead).min(mapping.end);
                        ahead = now.end..end;
                        stream.last.end = end;
                    }
                    Direction::Down => {
                        let start = now.start.saturating_sub(stream.ahead).max(mapping.start);
                        ahead = start..now.start;
                        stream.last.start = start;
                    }
                }
            }
            _ => {}
        }
        if let (Some(slot), Some(near)) = (self.streams.get_mut(index), self.near.get_mut(index)) {
            *slot = stream;
            *near = Near::of(stream.last);
        }
        Window { now, ahead }
    }

    /// The stream that a fault belongs to and how, or the stream that it replaces.
    fn find(&mut self, space: usize, address: usize) -> (usize, Place) {
        let (mut within, mut from) = (None, 0);
        while let Some(index) = self.next_near(address, from) {
            from = index + 1;
            let stream = self.streams.get(index);
            match stream.and_then(|stream| Some((stream.place_of(space, address)?, stream.used))) {
                Some((place @ Place::Next(_), _)) => return (index, place),
                // The range may be stale, and the address the next one of another stream.
                Some((place, used)) if self.clock - used <= WITHIN_FAULTS => {
                    within = within.or(Some((index, place)));
                }
                _ => {}
            }
        }
        within.unwrap_or_else(|| (self.forget(), Place::New))
    }

    /// The first stream from `from` on that is near `address`.
    fn next_near(&self, address: usize, from: usize) -> Option<usize> {
        let rest = self.near.get(from..)?;
        Some(from + rest.iter().position(|near| near.contains(address))?)
    }

    /// Chooses a stream to replace by clock: one that no fault continued since the hand last passed.
    fn forget(&mut self) -> usize {
        for _ in 0..N {
            let index = self.hand;
            self.hand = (index + 1) % N;
            match self.streams.get_mut(index) {
                Some(stream) if stream.goes_on => stream.goes_on = false,
                _ => return index,
            }
        }
        self.hand
    }
}

/// The window of `size` bytes for a fault at `address`.
fn now(
    address: usize,
    mapping: &Range<usize>,
    size: usize,
    least: usize,
    direction: Direction,
) -> Range<usize> {
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
    start..end
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

/// Where a fault lies relative to the streams.
#[derive(Clone, Copy)]
enum Place {
    /// At the next address of a stream.
    Next(Direction),
    /// In the range that is being prefetched for a stream.
    Within,
    /// Elsewhere.
    New,
}

impl Stream {
    /// Where a fault at `address` is, if it belongs to the stream.
    fn place_of(&self, space: usize, address: usize) -> Option<Place> {
        if self.space != space || self.space == 0 {
            return None;
        }
        let Span { start, end } = self.last;
        if (end..end.saturating_add(NEAR)).contains(&address) {
            Some(Place::Next(Direction::Up))
        } else if (start.saturating_sub(NEAR)..start).contains(&address) {
            Some(Place::Next(Direction::Down))
        } else if self.ahead > 0 && (start..end).contains(&address) {
            Some(Place::Within)
        } else {
            None
        }
    }
}
