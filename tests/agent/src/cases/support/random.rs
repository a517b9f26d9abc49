// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Numbers that look random and are the same for the same seed.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;

/// The generator xorshift64*.
#[derive(Clone, Debug)]
pub(in crate::cases) struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub(in crate::cases) fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub(in crate::cases) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which must not be zero.
    pub(in crate::cases) fn below(&mut self, limit: usize) -> usize {
        // The high bits are the better ones, and the bias does not matter here.
        ((self.next() >> 16) % limit as u64) as usize
    }
}

/// A seed that is easy to type.
pub(in crate::cases) fn some_seed() -> Result<u64> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("no random numbers")?;
    Ok(u32::from_ne_bytes(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            std::array::from_fn::<_, 8, _>(|_| random.below(1000))
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
        assert!(numbers(3).iter().all(|&number| number < 1000));
    }
}
