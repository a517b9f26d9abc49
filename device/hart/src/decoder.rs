// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The cache of decoded instructions.

use crate::Instruction;
use crate::decode::{decode, is_compressed};

/// Entries of the cache; 16 bytes each.
const ENTRIES: usize = 2048;

/// Decodes words, and remembers the last ones.
///
/// What a word means depends on nothing but the word, so the cache needs no invalidation: code may change in memory, and any hart
/// may use any decoder.
#[derive(Debug)]
pub struct Decoder {
    entries: Box<[(u32, Instruction); ENTRIES]>,
}

impl Default for Decoder {
    fn default() -> Self {
        // Word 0 is compressed and illegal, so every entry is true from the beginning.
        Self {
            entries: Box::new([(0, Instruction::illegal(2)); ENTRIES]),
        }
    }
}

impl Decoder {
    /// The instruction that begins with `word`; of the word of a compressed one only the low half counts.
    #[inline]
    pub fn decode(&mut self, word: u32) -> Instruction {
        let word = match is_compressed(word) {
            true => word & 0xffff,
            false => word,
        };
        let hash = word.wrapping_mul(0x9e37_79b1) >> (32 - ENTRIES.trailing_zeros());
        let entry = &mut self.entries[hash as usize % ENTRIES];
        if entry.0 != word {
            *entry = (word, decode(word));
        }
        entry.1
    }
}
