// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The yardstick for bandwidth: the host's plain memcpy.

use std::hint::black_box;
use std::time::Instant;

/// Bytes copied at once: a huge page.
const PIECE: usize = 2 << 20;
/// Bytes on each side, more than caches hold.
const BYTES: usize = 256 << 20;

/// Two areas of memory, all of it touched.
pub(super) struct Memcpy {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Memcpy {
    pub(super) fn new() -> Self {
        Self {
            from: vec![1; BYTES],
            to: vec![2; BYTES],
        }
    }

    /// Copies everything once, and returns the bytes of a second.
    pub(super) fn speed(&mut self) -> f64 {
        let started = Instant::now();
        for (to, from) in self
            .to
            .chunks_exact_mut(PIECE)
            .zip(self.from.chunks_exact(PIECE))
        {
            to.copy_from_slice(black_box(from));
        }
        black_box(&mut self.to);
        BYTES as f64 / started.elapsed().as_secs_f64()
    }
}
