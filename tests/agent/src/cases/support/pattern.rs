// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the bytes of a page are. They depend on the seed and on the place of the page in the pattern, and on nothing
//! else, so a page that is lost, exchanged or old is noticed, and can be told from where it came.

use super::memory::PAGE;
use std::fmt;

/// Words of a page.
const WORDS: usize = PAGE / 8;
/// Where the seed begins in what is mixed; below it is the place.
const SEED_SHIFT: u32 = 40;
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// `MULTIPLIER * INVERSE` is 1, modulo 2^64.
const INVERSE: u64 = inverse(MULTIPLIER);
const XOR_SHIFT: u32 = 29;
/// Neither a seed nor a mapping of the cases is larger; a word that says otherwise is no pattern.
const SEEDS: u64 = 1 << 21;
const PLACES: u64 = 1 << 28;

/// Fills whole pages, of which the first is the page `first` of the pattern.
pub(in crate::cases) fn fill(bytes: &mut [u8], first: usize, seed: u64) {
    for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&word_at(seed, first * WORDS + index).to_le_bytes());
    }
}

/// The first word of whole pages that is not as [`fill`] has it.
pub(in crate::cases) fn difference(bytes: &[u8], first: usize, seed: u64) -> Option<Difference> {
    for (index, word) in bytes.as_chunks::<8>().0.iter().enumerate() {
        let expected = word_at(seed, first * WORDS + index);
        let found = u64::from_le_bytes(*word);
        if found != expected {
            return Some(Difference {
                offset: index * 8,
                expected,
                found,
            });
        }
    }
    None
}

/// A word that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cases) struct Difference {
    /// Bytes from the start of what was looked at.
    pub(in crate::cases) offset: usize,
    expected: u64,
    found: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected {:#018x}, found {:#018x}",
            self.expected, self.found
        )?;
        match origin(self.found) {
            Some((seed, page)) => write!(f, ", which is of page {page} of seed {seed}"),
            None => Ok(()),
        }
    }
}

/// A word that looks like noise.
fn word_at(seed: u64, index: usize) -> u64 {
    let mixed = (seed << SEED_SHIFT)
        .wrapping_add(index as u64)
        .wrapping_add(1)
        .wrapping_mul(MULTIPLIER);
    mixed ^ (mixed >> XOR_SHIFT)
}

/// The seed and the page that a word belongs to, if it looks like one of a pattern.
fn origin(word: u64) -> Option<(u64, u64)> {
    let mixed = word ^ (word >> XOR_SHIFT) ^ (word >> (2 * XOR_SHIFT));
    let place = mixed.wrapping_mul(INVERSE).checked_sub(1)?;
    let (seed, index) = (place >> SEED_SHIFT, place & ((1 << SEED_SHIFT) - 1));
    (seed < SEEDS && index < PLACES).then_some((seed, index / WORDS as u64))
}

/// Newton's method: each round doubles the number of bits that are right, and three are right at the start.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::{INVERSE, MULTIPLIER, difference, fill, origin};
    use crate::cases::support::memory::PAGE;

    #[test]
    fn every_change_is_noticed() {
        let mut bytes = vec![0; 3 * PAGE];
        fill(&mut bytes, 7, 1);
        assert_eq!(difference(&bytes, 7, 1), None);
        assert!(difference(&bytes, 7, 2).is_some() && difference(&bytes, 8, 1).is_some());
        for offset in [0, PAGE - 1, PAGE, 3 * PAGE - 1] {
            bytes[offset] ^= 1;
            let found = difference(&bytes, 7, 1).unwrap();
            assert_eq!(found.offset, offset / 8 * 8);
            bytes[offset] ^= 1;
        }
    }

    #[test]
    fn a_word_tells_where_it_comes_from() {
        assert_eq!(MULTIPLIER.wrapping_mul(INVERSE), 1);
        let mut bytes = vec![0; PAGE];
        for (page, seed) in [(0, 1), (5, 12), (4000, 1 << 20)] {
            fill(&mut bytes, page, seed);
            for word in bytes.as_chunks::<8>().0 {
                let found = origin(u64::from_le_bytes(*word));
                assert_eq!(found, Some((seed, page as u64)));
            }
        }
        for word in [0, u64::MAX, 0x1234_5678] {
            assert_eq!(origin(word), None);
        }
    }
}
