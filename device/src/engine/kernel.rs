// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How bytes are copied: with ordinary stores, or past the caches. Chosen once, by what the processor has.

use std::fmt;

/// Which of the two a copy wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// The destination is read soon.
    Ordinary,
    /// The destination is not read soon.
    NonTemporal,
}

/// What the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KernelChoice {
    /// Past the caches for large batches, if the processor can.
    #[default]
    Auto,
    /// With ordinary stores always.
    Ordinary,
    /// Not at all: batches succeed and no byte is moved. For measuring what a copy costs beside everything else; needs
    /// --bench-lose-data
    None,
}

/// How much of what comes next is fetched early.
#[cfg(target_arch = "x86_64")]
const PREFETCH_BYTES: usize = 1024;

type Copy = unsafe fn(*mut u8, *const u8, usize);

/// The copy functions of this processor.
#[derive(Clone, Copy)]
pub struct Kernels {
    non_temporal: Copy,
    name: &'static str,
    /// Whether anything is moved at all.
    moves: bool,
}

impl fmt::Debug for Kernels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

impl Kernels {
    /// The functions for this processor.
    pub fn new(choice: KernelChoice) -> Self {
        #[cfg(target_arch = "x86_64")]
        if choice == KernelChoice::Auto && is_x86_feature_detected!("avx2") {
            return Self {
                non_temporal: avx2::copy,
                name: "avx2-non-temporal",
                moves: true,
            };
        }
        Self {
            non_temporal: ordinary,
            name: match choice {
                KernelChoice::Auto | KernelChoice::Ordinary => "ordinary",
                KernelChoice::None => "none",
            },
            moves: choice != KernelChoice::None,
        }
    }

    /// Whether bytes are moved. If not, batches succeed all the same, and what they say of bytes is what they were asked.
    #[inline]
    pub fn moves(&self) -> bool {
        self.moves
    }

    /// The name of what large batches are copied with.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Copies `len` bytes, if anything is moved.
    ///
    /// # Safety
    /// Both ranges are mapped for `len` bytes, the destination for writing, and they do not overlap. Nobody holds a
    /// reference over either.
    #[inline]
    pub(super) unsafe fn copy(&self, kernel: Kernel, to: *mut u8, from: *const u8, len: usize) {
        match kernel {
            _ if !self.moves => {}
            // SAFETY: the caller's promise.
            Kernel::Ordinary => unsafe { ordinary(to, from, len) },
            // SAFETY: the caller's promise; the function was chosen by the features of this processor.
            Kernel::NonTemporal => unsafe { (self.non_temporal)(to, from, len) },
        }
    }

    /// Fills `len` bytes with `pattern` in little-endian order, if anything is moved.
    ///
    /// # Safety
    /// The range is mapped for writing, aligned to 8 and a multiple of 8 long. Nobody holds a reference over it.
    pub(super) unsafe fn fill(&self, to: *mut u8, len: usize, pattern: u64) {
        if !self.moves {
            return;
        }
        let bytes = pattern.to_le_bytes();
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            // SAFETY: the caller's promise.
            unsafe { std::ptr::write_bytes(to, bytes[0], len) };
            return;
        }
        let word = u64::from_ne_bytes(bytes);
        for index in 0..len / 8 {
            // SAFETY: the caller's promise: `index` is within the range and the address is aligned to 8.
            unsafe { to.cast::<u64>().add(index).write(word) };
        }
    }

    /// Fetches the beginning of what is copied next. The processor notices a pattern only within a page; the first lines
    /// of a page elsewhere, and its translation, are what it would wait for.
    ///
    /// # Safety
    /// The range is mapped for `len` bytes.
    #[inline]
    pub(super) unsafe fn prefetch(&self, from: *const u8, len: usize) {
        if !self.moves {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        for at in (0..len.min(PREFETCH_BYTES)).step_by(64) {
            // SAFETY: the caller's promise: `at` is within the range.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(from.add(at).cast());
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (from, len);
    }

    /// Orders everything that was copied before everything that is stored afterwards.
    #[inline]
    pub(super) fn flush(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 processor has SSE.
        unsafe {
            std::arch::x86_64::_mm_sfence();
        }
        #[cfg(not(target_arch = "x86_64"))]
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
    }
}

/// # Safety
/// As [`Kernels::copy`].
#[inline]
unsafe fn ordinary(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm256_stream_si256,
    };

    const LINE: usize = 64;
    const VECTOR: usize = 32;
    /// Four vectors are in flight at a time: two cache lines.
    const STEP: usize = 4 * VECTOR;
    /// How far ahead the source is fetched.
    const AHEAD: usize = 8 * STEP;

    /// Copies with stores that do not go through the caches. Unaligned destinations are copied the ordinary way.
    ///
    /// # Safety
    /// As [`super::Kernels::copy`], and the processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
        if to.align_offset(VECTOR) != 0 || len < STEP {
            // SAFETY: the caller's promise.
            unsafe { super::ordinary(to, from, len) };
            return;
        }
        let whole = len - len % STEP;
        let mut at = 0;
        while at < whole {
            if at + AHEAD < whole {
                // SAFETY: `at + AHEAD + STEP` is at most `whole`, so both lines are in range.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(from.add(at + AHEAD).cast());
                    _mm_prefetch::<_MM_HINT_T0>(from.add(at + AHEAD + LINE).cast());
                }
            }
            // SAFETY: `at + STEP` is at most `len`, so all four loads and stores are in range; stores are aligned
            // because the destination is and STEP is a multiple of VECTOR.
            unsafe {
                let source = from.add(at).cast::<__m256i>();
                let destination = to.add(at).cast::<__m256i>();
                let first = _mm256_loadu_si256(source);
                let second = _mm256_loadu_si256(source.add(1));
                let third = _mm256_loadu_si256(source.add(2));
                let fourth = _mm256_loadu_si256(source.add(3));
                _mm256_stream_si256(destination, first);
                _mm256_stream_si256(destination.add(1), second);
                _mm256_stream_si256(destination.add(2), third);
                _mm256_stream_si256(destination.add(3), fourth);
            }
            at += STEP;
        }
        // SAFETY: `at` is at most `len`, so the rest is in range.
        unsafe { super::ordinary(to.add(at), from.add(at), len - at) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Kernel, KernelChoice, Kernels};

    proptest! {
        #[test]
        fn both_kernels_copy_every_byte_and_no_other(
            from in 0usize..64, to in 0usize..64, len in 0usize..5000,
        ) {
            let source: Vec<u8> = (0..5064u32).map(|index| ((index * 31) >> 3) as u8).collect();
            for choice in [KernelChoice::Auto, KernelChoice::Ordinary] {
                for kernel in [Kernel::Ordinary, Kernel::NonTemporal] {
                    let kernels = Kernels::new(choice);
                    let mut destination = vec![0xaa; 5128];
                    let at = destination.as_mut_ptr();
                    // SAFETY: both buffers are longer than the largest offset and length together.
                    unsafe { kernels.copy(kernel, at.add(to), source.as_ptr().add(from), len) };
                    kernels.flush();
                    prop_assert_eq!(&destination[to..to + len], &source[from..from + len]);
                    prop_assert!(destination[..to].iter().all(|byte| *byte == 0xaa));
                    prop_assert!(destination[to + len..].iter().all(|byte| *byte == 0xaa));
                }
            }
        }

        #[test]
        fn fill_repeats_the_pattern(pattern: u64, words in 0usize..600) {
            let mut buffer = vec![0u64; words + 1];
            // SAFETY: the buffer is aligned to 8 and one word longer than what is filled.
            unsafe { Kernels::new(KernelChoice::Auto).fill(buffer.as_mut_ptr().cast(), words * 8, pattern) };
            prop_assert!(buffer[..words].iter().all(|word| u64::from_le(*word) == pattern));
            prop_assert_eq!(buffer[words], 0);
        }
    }
}
