// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which blocks of device memory jobs accessed and wrote.

use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::{GRANULE_BYTES, GRANULE_SHIFT};

/// Two bits for each block of 2 MiB of device memory. They are set before the access that they tell of.
#[derive(Debug)]
pub struct AccessBits {
    accessed: Vec<AtomicU64>,
    written: Vec<AtomicU64>,
}

impl AccessBits {
    /// All bits clear, for `memory_bytes` bytes of device memory.
    pub fn new(memory_bytes: u64) -> Self {
        let words = memory_bytes.div_ceil(GRANULE_BYTES).div_ceil(64);
        let words = || (0..words).map(|_| AtomicU64::new(0)).collect();
        Self {
            accessed: words(),
            written: words(),
        }
    }

    /// Notes an access to device memory [`start`, `start + len`), bytes.
    #[inline]
    pub(super) fn note(&self, start: u64, len: u64, writes: bool) {
        let last = start.saturating_add(len.saturating_sub(1)) >> GRANULE_SHIFT;
        for block in start >> GRANULE_SHIFT..=last {
            set(&self.accessed, block);
            if writes {
                set(&self.written, block);
            }
        }
    }

    /// Words of 64 blocks each, from block `first` on, `blocks` blocks (a multiple of 64): which were accessed, and then which
    /// were written. With `clear` the bits are cleared as they are read. Blocks beyond the end of device memory read as 0.
    pub fn read(&self, first: u64, blocks: u64, clear: bool) -> Vec<u64> {
        let bitmap = |words: &[AtomicU64]| -> Vec<u64> {
            (0..blocks / 64)
                .map(|word| {
                    let at = first.saturating_add(word.saturating_mul(64));
                    take(words, at, 64 - at % 64, clear)
                        | match at % 64 {
                            0 => 0,
                            low => take(words, at + (64 - low), low, clear) << (64 - low),
                        }
                })
                .collect()
        };
        let mut words = bitmap(&self.accessed);
        words.extend(bitmap(&self.written));
        words
    }

    /// Clears all bits.
    pub fn clear(&self) {
        for word in self.accessed.iter().chain(&self.written) {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// Jobs that access the same block all the time only read the word, and so do not take its cache line from each other.
#[inline]
fn set(words: &[AtomicU64], block: u64) {
    let mask = 1 << (block % 64);
    if let Some(word) = usize::try_from(block / 64)
        .ok()
        .and_then(|at| words.get(at))
        && word.load(Ordering::Relaxed) & mask == 0
    {
        word.fetch_or(mask, Ordering::Relaxed);
    }
}

/// The bits of `count` blocks, 1 to 64, from `first` on, which are all in one word.
fn take(words: &[AtomicU64], first: u64, count: u64, clear: bool) -> u64 {
    let Some(word) = usize::try_from(first / 64)
        .ok()
        .and_then(|at| words.get(at))
    else {
        return 0;
    };
    let mask = u64::MAX >> (64 - count) << (first % 64);
    let bits = match clear {
        true => word.fetch_and(!mask, Ordering::Relaxed),
        false => word.load(Ordering::Relaxed),
    };
    (bits & mask) >> (first % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::AccessBits;

    const BLOCKS: u64 = 200;

    proptest! {
        #[test]
        fn bits_follow_a_set(
            notes in proptest::collection::vec((0..BLOCKS << 21, 1u64..8 << 20, any::<bool>()), 0..20),
            first in 0..BLOCKS,
            words in 1u64..6,
            clear in any::<bool>(),
        ) {
            let bits = AccessBits::new(BLOCKS << 21);
            let mut sets = [BTreeSet::new(), BTreeSet::new()];
            for (start, len, writes) in notes {
                let len = len.min((BLOCKS << 21) - start);
                bits.note(start, len, writes);
                for block in start >> 21..=(start + len - 1) >> 21 {
                    sets[0].insert(block);
                    if writes {
                        sets[1].insert(block);
                    }
                }
            }
            let read = bits.read(first, words * 64, clear);
            prop_assert_eq!(read.len() as u64, words * 2);
            for (bitmap, set) in read.chunks(words as usize).zip(&sets) {
                for block in 0..words * 64 {
                    let bit = bitmap[(block / 64) as usize] >> (block % 64) & 1 == 1;
                    prop_assert_eq!(bit, set.contains(&(first + block)), "block {}", first + block);
                }
            }
            let again = bits.read(0, 256, false);
            for (bitmap, set) in again.chunks(4).zip(&sets) {
                for block in 0..BLOCKS {
                    let cleared = clear && (first..first + words * 64).contains(&block);
                    let bit = bitmap[(block / 64) as usize] >> (block % 64) & 1 == 1;
                    prop_assert_eq!(bit, set.contains(&block) && !cleared);
                }
            }
        }
    }
}
