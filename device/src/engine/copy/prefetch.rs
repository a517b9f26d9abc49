// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is prefetched of the next piece while one is copied.

use super::{
    CopyRoutine,
    x86_64::{LINE, prefetch_read, prefetch_write},
};

/// Prefetches for a copy with `routine`.
///
/// # Safety
/// Both ranges are mapped for `len` bytes, the destination for writing.
#[inline]
pub(super) unsafe fn prefetch_with(routine: CopyRoutine, to: *mut u8, from: *const u8, len: usize) {
    /// How much of the next source is fetched before a routine that leaves the caches alone, and before another.
    const STREAM_BYTES: usize = 1024;
    const CACHED_BYTES: usize = 128;

    if routine.streams() {
        for at in (0..len.min(STREAM_BYTES)).step_by(LINE) {
            // SAFETY: the caller's promise: `at` is within the range.
            unsafe { prefetch_read(from.add(at)) };
        }
    } else {
        for at in (0..len.min(CACHED_BYTES)).step_by(LINE) {
            // SAFETY: the caller's promise: `at` is within both ranges.
            unsafe {
                prefetch_read(from.add(at));
                prefetch_write(to.add(at));
            }
        }
    }
}
