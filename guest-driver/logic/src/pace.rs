// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Batch size: as large as the measured bandwidth allows within a bound on the latency of a page.

/// The measured speed of a device, and the size of a batch that follows from it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Smoothed time of a MiB, ns; 0 until something was measured.
    ns_per_mib: u64,
    least: usize,
    most: usize,
    target_ns: u64,
}

/// Smaller copies measure the fixed cost of a batch rather than the bandwidth, bytes.
const TELLING: u64 = 256 << 10;
const MIB: u64 = 1 << 20;

impl Pace {
    /// A pace whose batches are to take `target_ns` (ns) and have from `least` to `most` bytes,
    /// both multiples of `least`.
    pub const fn new(target_ns: u64, least: usize, most: usize) -> Self {
        Self {
            ns_per_mib: 0,
            least,
            most,
            target_ns,
        }
    }

    /// Records that copying `bytes` took `ns` (ns). A sample faster than the average weighs one half, a
    /// slower one a sixteenth: contention makes a copy slower than the link, nothing makes it faster.
    pub fn record(&mut self, bytes: u64, ns: u32) {
        if bytes < TELLING {
            return;
        }
        let sample = u64::from(ns).max(1).saturating_mul(MIB) / bytes;
        let sample = sample.clamp(1, u64::MAX / 16);
        self.ns_per_mib = match self.ns_per_mib {
            0 => sample,
            old if sample < old => ((old + sample) / 2).max(1),
            old => (old * 15 + sample) / 16,
        };
    }

    /// Bytes of the next batch: the multiple of the least size that comes nearest. The least until
    /// something was measured.
    pub fn batch_bytes(&self) -> usize {
        if self.ns_per_mib == 0 {
            return self.least;
        }
        let bytes = self.target_ns.saturating_mul(MIB) / self.ns_per_mib;
        let bytes = usize::try_from(bytes).unwrap_or(self.most);
        let bytes = bytes.saturating_add(self.least / 2);
        let bytes = bytes.clamp(self.least, self.most.max(self.least));
        bytes - bytes % self.least.max(1)
    }
}
