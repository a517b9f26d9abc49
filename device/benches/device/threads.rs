// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a second thread is worth: two processors that are free, and memory that keeps up with both. No pair of queues can
//! be worth more.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that each thread copies; no cache holds them.
const BYTES: usize = 64 << 20;

/// Memory for two threads.
pub(crate) struct TwoThreads([Half; 2]);

struct Half {
    source: Vec<u8>,
    target: Vec<u8>,
}

impl Half {
    fn new() -> Self {
        Self {
            source: vec![1; BYTES],
            target: vec![2; BYTES],
        }
    }

    fn copy(&mut self) {
        self.target.copy_from_slice(black_box(&self.source));
        black_box(&self.target);
    }
}

impl TwoThreads {
    pub(crate) fn new() -> Self {
        Self([Half::new(), Half::new()])
    }

    /// How much sooner two threads have copied both halves than one.
    pub(crate) fn by_one(&mut self) -> f64 {
        let one = timed(|| self.0.iter_mut().for_each(Half::copy));
        let two = timed(|| {
            thread::scope(|scope| {
                for half in &mut self.0 {
                    scope.spawn(|| half.copy());
                }
            });
        });
        one.as_secs_f64() / two.as_secs_f64()
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}
