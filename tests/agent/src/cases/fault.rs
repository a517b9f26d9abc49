// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `fault/*`: an access by the CPU, by the kernel or by another process migrates pages back.

mod against_collect;
mod ahead;
mod by_cpu;
mod by_kernel;
mod by_process;
mod code;

use super::support::prelude::*;

/// The cases of this group.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    (by_cpu::CASES.iter())
        .chain(against_collect::CASES)
        .chain(ahead::CASES)
        .chain(by_kernel::CASES)
        .chain(by_process::CASES)
        .chain(code::CASES)
}

/// Memory with the pattern of a seed, on the device.
fn on_device(mover: &Mover, mut memory: Memory, seed: u64) -> Result<Memory> {
    memory.fill(seed);
    mover.all_to_device(memory.range())?;
    Ok(memory)
}
