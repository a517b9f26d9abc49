// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A loop as a program of the device, and the same loop on the guest's CPU.

use super::jobs::device_ns;
use super::measure::nanoseconds;
use crate::cases::support::jobs::Jobs;
use crate::cases::support::memory::Memory;
use anyhow::{Result, ensure};
use hmm_uapi::client::{JobRequest, ProgramRequest};
use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Steps of the loop.
const STEPS: u64 = 1_000_000;
/// Instructions of a step.
const INSTRUCTIONS: u64 = 6;
/// Instructions around the loop.
const OTHERS: u64 = 2;
const STACK: u64 = 4096;
/// `li a2, 0`; `1: lw t1, 0(a0); add a2, a2, t1; sw a2, 4(a0); xor a2, a2, a1; addi a1, a1, -1; bnez a1, 1b`; `ret`.
const CODE: [u32; 8] = [
    0x0000_0613,
    0x0005_2303,
    0x0066_0633,
    0x00c5_2223,
    0x00b6_4633,
    0xfff5_8593,
    0xfe05_96e3,
    0x0000_8067,
];

/// Measures both. Returns the number of steps, and the times, nanoseconds.
pub(super) fn measure() -> Result<(u64, [u64; 2])> {
    let jobs = Jobs::of_programs()?;
    let mut code = Memory::single(4)?;
    let bytes = CODE.iter().flat_map(|word| word.to_le_bytes());
    for (place, byte) in code.bytes_mut().iter_mut().zip(bytes) {
        *place = byte;
    }
    let data = Memory::single(1)?;
    let call = |steps| ProgramRequest {
        entry: code.address() as u64,
        stack_top: code.range().end,
        stack_bytes: STACK,
        harts: 1,
        arguments: [data.address() as u64, steps, 0, 0, 0],
        ..ProgramRequest::default()
    };
    // The first one faults the pages in.
    data.word(0).store(7, Ordering::Relaxed);
    jobs.done(&JobRequest::program(&call(1)))?;
    let report = jobs.done(&JobRequest::program(&call(STEPS)))?;
    ensure!(
        report.faults == 0 && report.amount == STEPS * INSTRUCTIONS + OTHERS,
        "{report:?}"
    );
    let by_device = data.word(4).load(Ordering::Relaxed);
    let started = Instant::now();
    let mut sum = 0_u32;
    for left in (1..=black_box(STEPS)).rev() {
        sum = sum.wrapping_add(data.word(0).load(Ordering::Relaxed));
        data.word(4).store(sum, Ordering::Relaxed);
        sum ^= left as u32;
    }
    let by_cpu = nanoseconds(started)?;
    ensure!(
        by_device == data.word(4).load(Ordering::Relaxed),
        "the device and the CPU came to different results"
    );
    Ok((STEPS, [device_ns(&report)?, by_cpu]))
}
