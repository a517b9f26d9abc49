// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The routines that were chosen for this processor.

use std::fmt;

#[cfg(target_arch = "x86_64")]
use super::prefetch::prefetch_with;
use super::{
    CopyChoice, CopyRoutine, Measured, Pattern, measure,
    measured::unmeasured,
    portable::{Copy, flush},
};

/// A routine, ready to be called.
#[derive(Clone, Copy)]
struct Ready {
    routine: CopyRoutine,
    copy: Copy,
}

impl Ready {
    fn new(routine: CopyRoutine) -> Self {
        Self {
            routine,
            copy: routine.function(),
        }
    }
}

/// The copy routines of this processor.
#[derive(Clone)]
pub struct CopyRoutines {
    /// By [`Pattern`], for destinations that are not read soon.
    large: [Ready; 3],
    /// For destinations that are read soon.
    small: Ready,
    moves: bool,
    measured: Vec<Measured>,
}

impl fmt::Debug for CopyRoutines {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.summary())
    }
}

impl CopyRoutines {
    /// The routines that `choice` asks for. [`CopyChoice::Auto`] measures for some ten milliseconds.
    pub fn new(choice: CopyChoice) -> Self {
        let measured = match choice {
            CopyChoice::Auto => measure::fastest(),
            CopyChoice::Fixed(routine) => unmeasured(routine),
            CopyChoice::None => unmeasured(CopyRoutine::Memcpy),
        };
        let small = Ready::new(CopyRoutine::Memcpy);
        let mut large = [small; 3];
        for found in &measured {
            large[found.pattern as usize] = Ready::new(found.routine);
        }
        Self {
            large,
            small,
            moves: choice != CopyChoice::None,
            measured,
        }
    }

    /// Whether bytes are moved. If not, batches succeed all the same, and what they say of bytes is what they were asked.
    pub fn moves(&self) -> bool {
        self.moves
    }

    /// What large batches are copied with.
    pub fn measured(&self) -> &[Measured] {
        &self.measured
    }

    /// Their names: one if all patterns have the same, else by pattern, such as
    /// `gather=avx2-stream-1024,scatter=avx2,extents=avx2`.
    pub fn names(&self) -> String {
        if !self.moves {
            return "none".to_owned();
        }
        let names: Vec<_> = (self.measured.iter())
            .map(|found| {
                (
                    format!("{:?}", found.pattern).to_lowercase(),
                    found.routine.name(),
                )
            })
            .collect();
        match names.split_first() {
            Some(((_, first), rest)) if rest.iter().all(|(_, name)| name == first) => first.clone(),
            _ => (names.iter())
                .map(|(pattern, name)| format!("{pattern}={name}"))
                .collect::<Vec<_>>()
                .join(","),
        }
    }

    /// The same with their rates, for a log.
    pub fn summary(&self) -> String {
        if !self.moves {
            return "none".to_owned();
        }
        let names: Vec<_> = (self.measured.iter())
            .map(|found| {
                let rate = match (found.bytes_per_second, found.memcpy_bytes_per_second) {
                    (Some(rate), Some(memcpy)) => format!(
                        " {:.1} GB/s (memcpy {:.1})",
                        rate as f64 / 1e9,
                        memcpy as f64 / 1e9
                    ),
                    _ => String::new(),
                };
                format!("{}: {}{rate}", found.pattern.name(), found.routine.name())
            })
            .collect();
        names.join(", ")
    }

    fn ready(&self, pattern: Pattern, large: bool) -> Ready {
        match large {
            true => self.large[pattern as usize],
            false => self.small,
        }
    }

    /// Copies `len` bytes, which are a part of a transfer with this `pattern`; `large`: of a batch that does not fit
    /// the caches.
    ///
    /// # Safety
    /// Both ranges are mapped for `len` bytes, the destination for writing, and they do not overlap. No reference
    /// exists to either.
    #[inline]
    pub(in crate::engine) unsafe fn copy(
        &self,
        pattern: Pattern,
        large: bool,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) {
        if self.moves {
            // SAFETY: the caller's promise; only routines of which the processor has the instructions are chosen.
            unsafe { (self.ready(pattern, large).copy)(to, from, len) };
        }
    }

    /// Fills `len` bytes with `word` in little-endian order.
    ///
    /// # Safety
    /// The range is mapped for writing, aligned to 8 and a multiple of 8 long. No reference exists to it.
    pub(in crate::engine) unsafe fn fill(&self, to: *mut u8, len: usize, word: u64) {
        if !self.moves {
            return;
        }
        let bytes = word.to_le_bytes();
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

    /// Prefetches the beginning of what is copied next. The processor notices a pattern only within a page; the first
    /// lines of a page elsewhere, and its translation, are what a copy would wait for. Stores through the caches wait
    /// for the destination too.
    ///
    /// # Safety
    /// Both ranges are mapped for `len` bytes, the destination for writing.
    #[inline]
    pub(in crate::engine) unsafe fn prefetch(
        &self,
        pattern: Pattern,
        large: bool,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) {
        #[cfg(target_arch = "x86_64")]
        if self.moves {
            // SAFETY: the caller's promise.
            unsafe { prefetch_with(self.ready(pattern, large).routine, to, from, len) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (pattern, large, to, from, len);
    }

    /// Orders everything that was copied before everything that is stored afterwards.
    #[inline]
    pub(in crate::engine) fn flush(&self) {
        flush();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_routine_copies_every_byte_and_no_other(
            from in 0usize..64, to in 0usize..64, len in 0usize..9000,
        ) {
            let source: Vec<u8> = (0..9064u32).map(|index| ((index * 31) >> 3) as u8).collect();
            for routine in CopyRoutine::available() {
                let routines = CopyRoutines::new(CopyChoice::Fixed(routine));
                for pattern in Pattern::ALL {
                    let mut destination = vec![0xaa; 9128];
                    let at = destination.as_mut_ptr();
                    // SAFETY: both buffers are longer than the largest offset and length together.
                    unsafe {
                        let (to, from) = (at.add(to), source.as_ptr().add(from));
                        routines.prefetch(pattern, true, to, from, len);
                        routines.copy(pattern, true, to, from, len);
                    }
                    routines.flush();
                    prop_assert_eq!(&destination[to..to + len], &source[from..from + len]);
                    prop_assert!(destination[..to].iter().all(|byte| *byte == 0xaa));
                    prop_assert!(destination[to + len..].iter().all(|byte| *byte == 0xaa));
                }
            }
        }

        #[test]
        fn fill_repeats_the_word(word: u64, words in 0usize..600) {
            let mut buffer = vec![0u64; words + 1];
            // SAFETY: the buffer is aligned to 8 and one word longer than what is filled.
            unsafe { CopyRoutines::new(CopyChoice::default_fixed()).fill(buffer.as_mut_ptr().cast(), words * 8, word) };
            prop_assert!(buffer[..words].iter().all(|filled| u64::from_le(*filled) == word));
            prop_assert_eq!(buffer[words], 0);
        }
    }

    impl CopyChoice {
        fn default_fixed() -> Self {
            Self::Fixed(CopyRoutine::Memcpy)
        }
    }

    #[test]
    fn automatic_choice_is_never_slower_than_memcpy_was() {
        let routines = CopyRoutines::new(CopyChoice::Auto);
        assert_eq!(routines.measured().len(), Pattern::ALL.len());
        for found in routines.measured() {
            assert!(
                found.bytes_per_second >= found.memcpy_bytes_per_second,
                "{found:?}"
            );
            assert!(found.bytes_per_second.is_some());
        }
    }
}
