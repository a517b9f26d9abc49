// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The yardstick: memcpy of the same pages, between the guest's memory and a memfd like the device's.

use std::time::{Duration, Instant};

use hmm_front_end::{Guest, Layout};
use hmm_protocol::Op;
use rustix::time::{ClockId, clock_gettime};

use crate::load::Batch;

/// Memory like the device's, in this process.
pub(crate) struct Baseline {
    _memory: Guest,
    start: *mut u8,
}

impl Baseline {
    /// Memory of `bytes` bytes, all touched.
    pub(crate) fn new(bytes: u64) -> Self {
        let memory = Guest::new(&Layout::flat(bytes as usize));
        let start = memory.host_address(0) as *mut u8;
        // SAFETY: the mapping has `bytes` bytes, and nobody else knows of it.
        unsafe { std::ptr::write_bytes(start, 1, bytes as usize) };
        Self {
            _memory: memory,
            start,
        }
    }

    /// Copies `batches` as memcpy does it and returns the time that passed and the processor time.
    pub(crate) fn run(&self, guest: &Guest, batches: &[Batch]) -> (Duration, Duration) {
        let base = guest.host_address(0) as *mut u8;
        let started = Instant::now();
        let spent = processor_time();
        for batch in batches {
            let bytes = batch.shape.entry_bytes() as usize;
            for (address, device) in &batch.entries {
                // SAFETY: batches lie within both footprints, which are mapped; the two are different mappings, and the
                // device leaves this guest's memory alone while this runs.
                unsafe {
                    let guest = base.add(*address as usize);
                    let device = self.start.add(*device as usize);
                    match batch.op {
                        Op::ToSystem => std::ptr::copy_nonoverlapping(device, guest, bytes),
                        _ => std::ptr::copy_nonoverlapping(guest, device, bytes),
                    }
                }
            }
        }
        (started.elapsed(), processor_time().saturating_sub(spent))
    }
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
