// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Measures the copy routines on this machine.
//!
//! Both sides are shared memory, as device and guest memory are. What a copy touches is flushed from the caches
//! before its time is taken, so that a few MiB stand for memory that no cache holds. In every round each routine has
//! its turn, so that a slow moment of the machine meets all of them; what counts is each routine's best round.

use std::{
    ptr::null_mut,
    time::{Duration, Instant},
};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

#[cfg(target_arch = "x86_64")]
use super::prefetch::prefetch_with;
use super::{CopyRoutine, Measured, Pattern, measured::unmeasured, portable::flush};

/// Memory of each side, bytes.
const SIDE_BYTES: usize = 8 << 20;
/// What a routine copies in a round, bytes.
const ROUND_BYTES: usize = 2 << 20;
const ROUNDS: usize = 3;
const PAGE_BYTES: usize = 4096;
/// Scattered pages are so many pages apart, which meets every page of a side once.
const STRIDE: usize = 611;
const _: () = assert!((SIDE_BYTES / PAGE_BYTES).is_power_of_two() && STRIDE % 2 == 1);
/// A routine must beat memcpy by so much to be chosen, per cent: less is noise.
const MARGIN: u32 = 3;

/// The fastest routine for each pattern. Without memory to measure with, memcpy.
pub(super) fn fastest() -> Vec<Measured> {
    let (Some(from), Some(to)) = (Side::new(), Side::new()) else {
        tracing::warn!("no memory to measure copy routines with; memcpy is used");
        return unmeasured(CopyRoutine::Memcpy);
    };
    let mut turn = 0;
    (Pattern::ALL.into_iter())
        .map(|pattern| {
            let mut times: Vec<_> = CopyRoutine::available()
                .map(|routine| (routine, Duration::MAX))
                .collect();
            for _ in 0..ROUNDS {
                for (routine, best) in &mut times {
                    *best = (*best).min(time(*routine, pattern, turn, &from, &to));
                    turn += 1;
                }
            }
            choose(pattern, &times)
        })
        .collect()
}

/// The fastest of `times`, which begin with memcpy's.
fn choose(pattern: Pattern, times: &[(CopyRoutine, Duration)]) -> Measured {
    let rate = |time: Duration| (ROUND_BYTES as f64 / time.as_secs_f64()) as u64;
    let memcpy = (times.iter())
        .find(|(routine, _)| *routine == CopyRoutine::Memcpy)
        .map_or(Duration::MAX, |(_, time)| *time);
    let (routine, best) = (times.iter())
        .filter(|(_, time)| *time * (100 + MARGIN) < memcpy * 100)
        .min_by_key(|(_, time)| *time)
        .map_or((CopyRoutine::Memcpy, memcpy), |found| *found);
    Measured {
        pattern,
        routine,
        bytes_per_second: Some(rate(best)),
        memcpy_bytes_per_second: Some(rate(memcpy)),
    }
}

/// How long `routine` takes for a round at other places than the turn before.
fn time(routine: CopyRoutine, pattern: Pattern, turn: usize, from: &Side, to: &Side) -> Duration {
    let piece = match pattern {
        Pattern::Gather | Pattern::Scatter => PAGE_BYTES,
        Pattern::Extents => ROUND_BYTES,
    };
    let base = turn * ROUND_BYTES % SIDE_BYTES;
    let scattered = |page: usize| (turn + page) * STRIDE % (SIDE_BYTES / PAGE_BYTES) * PAGE_BYTES;
    // Where a piece begins on both sides, bytes.
    let place = |index: usize| match pattern {
        Pattern::Gather => (scattered(index), base + index * piece),
        Pattern::Scatter => (base + index * piece, scattered(index)),
        Pattern::Extents => (base, base),
    };
    let count = ROUND_BYTES / piece;
    for (source, destination) in (0..count).map(place) {
        from.forget(source, piece);
        to.forget(destination, piece);
    }
    let copy = routine.function();
    let started = Instant::now();
    for index in 0..count {
        let (source, destination) = place(index);
        let (next_source, next_destination) = place((index + 1) % count);
        // SAFETY: each place is the start of a piece within its side; the sides are different mappings and nothing
        // else knows them. Only routines that this processor has are asked for.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            prefetch_with(
                routine,
                to.start.add(next_destination),
                from.start.add(next_source),
                piece,
            );
            copy(to.start.add(destination), from.start.add(source), piece);
        }
    }
    flush();
    started.elapsed()
}

/// Mapped memory of [`SIDE_BYTES`].
struct Side {
    start: *mut u8,
}

impl Side {
    fn new() -> Option<Self> {
        // SAFETY: a new mapping at a place that the kernel chooses touches no other.
        let start = unsafe {
            mmap_anonymous(
                null_mut(),
                SIDE_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
            )
        };
        Some(Self {
            start: start.ok()?.cast(),
        })
    }

    /// Removes a piece from the caches.
    fn forget(&self, at: usize, len: usize) {
        #[cfg(target_arch = "x86_64")]
        for line in (at..(at + len).min(SIDE_BYTES)).step_by(super::x86_64::LINE) {
            // SAFETY: every x86-64 processor has SSE2, and `line` is within the mapping.
            unsafe { std::arch::x86_64::_mm_clflush(self.start.add(line)) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (at, len);
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own and goes with it.
        let unmapped = unsafe { munmap(self.start.cast(), SIDE_BYTES) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_within_a_side_and_met_once() {
        let pages = SIDE_BYTES / PAGE_BYTES;
        let mut met: Vec<_> = (0..pages).map(|page| page * STRIDE % pages).collect();
        met.sort_unstable();
        assert_eq!(met, (0..pages).collect::<Vec<_>>());
        assert_eq!(SIDE_BYTES % ROUND_BYTES, 0);
    }

    #[test]
    fn memcpy_stays_unless_another_is_clearly_faster() {
        let memcpy = (CopyRoutine::Memcpy, Duration::from_micros(1000));
        for other in CopyRoutine::available().skip(1) {
            let close = [memcpy, (other, Duration::from_micros(990))];
            assert_eq!(choose(Pattern::Gather, &close).routine, CopyRoutine::Memcpy);
            let faster = [memcpy, (other, Duration::from_micros(500))];
            assert_eq!(choose(Pattern::Gather, &faster).routine, other);
        }
    }
}
