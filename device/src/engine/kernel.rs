// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How bytes are copied: with ordinary stores, or past the caches. Chosen once, by what the processor has.

use std::fmt;

/// What a copy is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Nothing is moved.
    Nothing,
    /// Ordinary stores, for a destination that is read soon.
    Ordinary,
    /// Stores past the caches, for a destination that is not read soon.
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

/// How much of the next source is fetched early, if the copy before it leaves the caches alone, and if not.
#[cfg(target_arch = "x86_64")]
const EARLY_BYTES: usize = 1024;
#[cfg(target_arch = "x86_64")]
const EARLY_BYTES_CACHED: usize = 128;

type Copy = unsafe fn(*mut u8, *const u8, usize);

/// The copy functions of this processor.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// Copies past the caches, where the processor can and the user wants it.
    non_temporal: Option<Copy>,
    moves: bool,
    name: &'static str,
}

impl fmt::Debug for Kernels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

impl Kernels {
    /// The functions for this processor.
    pub fn new(choice: KernelChoice) -> Self {
        let ordinary = Self {
            non_temporal: None,
            moves: true,
            name: "ordinary",
        };
        match choice {
            #[cfg(target_arch = "x86_64")]
            KernelChoice::Auto if is_x86_feature_detected!("avx2") => Self {
                non_temporal: Some(avx2::copy),
                name: "avx2-non-temporal",
                ..ordinary
            },
            KernelChoice::Auto | KernelChoice::Ordinary => ordinary,
            KernelChoice::None => Self {
                moves: false,
                name: "none",
                ..ordinary
            },
        }
    }

    /// Whether bytes are moved. If not, batches succeed all the same, and what they say of bytes is what they were asked.
    pub fn moves(&self) -> bool {
        self.moves
    }

    /// What to copy with, past the caches if that is wanted.
    #[inline]
    pub(super) fn pick(&self, past_caches: bool) -> Kernel {
        match self.non_temporal {
            _ if !self.moves => Kernel::Nothing,
            Some(_) if past_caches => Kernel::NonTemporal,
            _ => Kernel::Ordinary,
        }
    }

    /// The name of what large batches are copied with.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Copies `len` bytes.
    ///
    /// # Safety
    /// Both ranges are mapped for `len` bytes, the destination for writing, and they do not overlap. Nobody holds a
    /// reference over either.
    #[inline]
    pub(super) unsafe fn copy(&self, kernel: Kernel, to: *mut u8, from: *const u8, len: usize) {
        match (kernel, self.non_temporal) {
            (Kernel::Nothing, _) => {}
            // SAFETY: the caller's promise; the function was chosen by the features of this processor.
            (Kernel::NonTemporal, Some(copy)) => unsafe { copy(to, from, len) },
            // SAFETY: the caller's promise.
            _ => unsafe { ordinary(to, from, len) },
        }
    }

    /// Fills `len` bytes with `pattern` in little-endian order.
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
    /// of a page elsewhere, and its translation, are what it would wait for. Ordinary stores wait for the destination
    /// too; stores past the caches do not.
    ///
    /// # Safety
    /// Both ranges are mapped for `len` bytes, the destination for writing.
    #[inline]
    pub(super) unsafe fn prefetch(&self, kernel: Kernel, to: *mut u8, from: *const u8, len: usize) {
        #[cfg(target_arch = "x86_64")]
        match kernel {
            Kernel::Nothing => {}
            Kernel::Ordinary => {
                for at in (0..len.min(EARLY_BYTES_CACHED)).step_by(64) {
                    // SAFETY: the caller's promise: `at` is within both ranges.
                    unsafe {
                        prefetch::read(from.add(at));
                        prefetch::write(to.add(at));
                    }
                }
            }
            Kernel::NonTemporal => {
                for at in (0..len.min(EARLY_BYTES)).step_by(64) {
                    // SAFETY: the caller's promise: `at` is within the range.
                    unsafe { prefetch::read(from.add(at)) };
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (kernel, to, from, len);
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
mod prefetch {
    use std::arch::{
        asm,
        x86_64::{_MM_HINT_T0, _mm_prefetch},
    };

    /// Fetches a line that is read soon.
    ///
    /// # Safety
    /// `at` is mapped.
    #[inline]
    pub(super) unsafe fn read(at: *const u8) {
        // SAFETY: every x86-64 processor has SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

    /// Fetches a line that is written soon, and takes it from other processors.
    ///
    /// # Safety
    /// `at` is mapped for writing.
    #[inline]
    pub(super) unsafe fn write(at: *mut u8) {
        // SAFETY: the instruction changes nothing that a program can see; a processor that does not have it skips it.
        // The intrinsic for it makes another instruction of it unless the compiler is told of the processor.
        unsafe { asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly)) };
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_stream_si256};

    use super::prefetch;

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
                    prefetch::read(from.add(at + AHEAD));
                    prefetch::read(from.add(at + AHEAD + LINE));
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

    use super::{KernelChoice, Kernels};

    proptest! {
        #[test]
        fn both_kernels_copy_every_byte_and_no_other(
            from in 0usize..64, to in 0usize..64, len in 0usize..5000,
        ) {
            let source: Vec<u8> = (0..5064u32).map(|index| ((index * 31) >> 3) as u8).collect();
            for choice in [KernelChoice::Auto, KernelChoice::Ordinary] {
                let kernels = Kernels::new(choice);
                for kernel in [kernels.pick(false), kernels.pick(true)] {
                    let mut destination = vec![0xaa; 5128];
                    let at = destination.as_mut_ptr();
                    // SAFETY: both buffers are longer than the largest offset and length together.
                    unsafe {
                        kernels.prefetch(kernel, at.add(to), source.as_ptr().add(from), len);
                        kernels.copy(kernel, at.add(to), source.as_ptr().add(from), len);
                    }
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
