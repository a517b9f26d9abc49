// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Which pages a CPU fault takes along.

use core::ops::Range;

/// The `window` bytes (a power of two) around `address` that lie within `bounds`, aligned to the
/// window's size. All numbers are addresses in bytes; `address` must lie within `bounds`.
pub fn window_around(address: usize, bounds: Range<usize>, window: usize) -> Range<usize> {
    let mask = window.max(1) - 1;
    let start = address & !mask;
    let end = start.saturating_add(window);
    start.max(bounds.start)..end.min(bounds.end)
}
