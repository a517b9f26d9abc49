// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copy routines with instructions of x86-64 processors, and their prefetches.

use std::arch::{
    asm,
    x86_64::{
        __m256i, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm256_storeu_si256,
        _mm256_stream_si256, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_stream_si512,
    },
};

use super::portable::memcpy;

/// A cache line, bytes.
pub(super) const LINE: usize = 64;

/// Prefetches a line that is read soon.
///
/// # Safety
/// `at` is mapped.
#[inline]
pub(super) unsafe fn prefetch_read(at: *const u8) {
    // SAFETY: every x86-64 processor has SSE.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// Prefetches a line that is written soon, and takes it from other processors.
///
/// # Safety
/// `at` is mapped for writing.
#[inline]
pub(super) unsafe fn prefetch_write(at: *mut u8) {
    // SAFETY: the instruction changes nothing that a program can see; a processor that does not have it skips it.
    // The intrinsic for it makes another instruction of it unless the compiler is told of the processor.
    unsafe { asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly)) };
}

/// Copies with one string instruction.
///
/// # Safety
/// As [`super::portable::Copy`].
pub(super) unsafe fn rep_movsb(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's promise. The direction flag is clear in every Rust function.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    };
}

/// Makes a routine that copies four vectors a step. Destinations that are not aligned to a vector, which streaming
/// stores need, are left to memcpy.
macro_rules! vector_routine {
    ($(#[$doc:meta])* $name:ident $(<const $lookahead:ident>)?, $feature:literal, $vector:ty, $load:ident, $store:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As [`super::portable::Copy`].
        #[target_feature(enable = $feature)]
        pub(super) unsafe fn $name $(<const $lookahead: usize>)? (to: *mut u8, from: *const u8, len: usize) {
            const VECTOR: usize = size_of::<$vector>();
            const STEP: usize = 4 * VECTOR;
            if to.align_offset(VECTOR) != 0 || len < STEP {
                // SAFETY: the caller's promise.
                unsafe { memcpy(to, from, len) };
                return;
            }
            let whole = len - len % STEP;
            let mut at = 0;
            while at < whole {
                $(if at + $lookahead < whole {
                    for line in (0..STEP).step_by(LINE) {
                        // SAFETY: `at`, the lookahead and `whole` are multiples of a step, so the step ends at most at
                        // `whole`.
                        unsafe { prefetch_read(from.add(at + $lookahead + line)) };
                    }
                })?
                // SAFETY: `at + STEP` is at most `len`, so all four loads and stores are in range; stores are aligned
                // because the destination is and a step is a multiple of a vector.
                unsafe {
                    let source = from.add(at).cast::<$vector>();
                    let destination = to.add(at).cast::<$vector>();
                    let first = $load(source);
                    let second = $load(source.add(1));
                    let third = $load(source.add(2));
                    let fourth = $load(source.add(3));
                    $store(destination, first);
                    $store(destination.add(1), second);
                    $store(destination.add(2), third);
                    $store(destination.add(3), fourth);
                }
                at += STEP;
            }
            // SAFETY: `at` is at most `len`, so the rest is in range.
            unsafe { memcpy(to.add(at), from.add(at), len - at) };
        }
    };
}

vector_routine!(
    /// Copies with stores of 32 bytes through the caches.
    avx2, "avx2", __m256i, _mm256_loadu_si256, _mm256_storeu_si256
);
vector_routine!(
    /// Copies with stores of 32 bytes past the caches.
    avx2_stream<const LOOKAHEAD>, "avx2", __m256i, _mm256_loadu_si256, _mm256_stream_si256
);
vector_routine!(
    /// Copies with stores of 64 bytes through the caches.
    avx512, "avx512f", __m512i, _mm512_loadu_si512, _mm512_storeu_si512
);
vector_routine!(
    /// Copies with stores of 64 bytes past the caches.
    avx512_stream<const LOOKAHEAD>, "avx512f", __m512i, _mm512_loadu_si512, _mm512_stream_si512
);
