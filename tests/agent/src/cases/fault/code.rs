// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A CPU executes what was on the device. Programs that compile while they run have such memory.
//!
//! Under emulation QEMU keeps what it translated of a page, and does not see that a device process writes to it: a kernel that
//! does not write to the pages that it allocates would have it execute what was there before.

use crate::cases::support::prelude::*;
use rustix::mm::MprotectFlags;

pub(super) const CASES: &[Case] = &[
    Case::new("fault/execute-anon-4k", || execute(Memory::single)),
    Case::new("fault/execute-anon-thp", || {
        execute(|pages| Memory::huge(pages * PAGE / HUGE))
    }),
];

const PAGES: usize = 2 * HUGE / PAGE;
const ROUNDS: u32 = 24;

/// Code in the same system pages is another one in each round.
fn execute(memory_of: impl Fn(usize) -> Result<Memory>) -> Result<()> {
    let mover = Mover::open()?;
    for round in 0..ROUNDS {
        let code = Code::new(memory_of(PAGES)?, round)?;
        code.check().context("before the move")?;
        mover.all_to_device(code.memory.range())?;
        // Otherwise the instruction fetch itself migrates it back.
        if round % 2 == 1 {
            mover
                .to_system(code.memory.range())?
                .expect(PAGES, none())?;
        }
        code.check().with_context(|| format!("round {round}"))?;
        mover.expect_in_system(code.memory.range())?;
    }
    Ok(())
}

/// A function in each page, which returns a number that no other has.
struct Code {
    memory: Memory,
    round: u32,
}

impl Code {
    fn new(mut memory: Memory, round: u32) -> Result<Self> {
        for (page, bytes) in (0..).zip(memory.bytes_mut().chunks_exact_mut(PAGE)) {
            // mov eax, number; ret
            bytes[0] = 0xb8;
            bytes[1..5].copy_from_slice(&number(round, page).to_le_bytes());
            bytes[5] = 0xc3;
        }
        memory.protect(0..memory.pages(), MprotectFlags::READ | MprotectFlags::EXEC)?;
        Ok(Self { memory, round })
    }

    fn check(&self) -> Result<()> {
        for (page, offset) in (0..).zip((0..self.memory.length()).step_by(PAGE)) {
            let start = self.memory.at(offset).as_ptr();
            // SAFETY: A function of this type begins there, which touches nothing but its result.
            let function: extern "C" fn() -> u32 = unsafe { std::mem::transmute(start) };
            let (found, expected) = (function(), number(self.round, page));
            ensure!(
                found == expected,
                "the code of page {page} returned {found:#x}, expected {expected:#x}"
            );
        }
        Ok(())
    }
}

fn number(round: u32, page: u32) -> u32 {
    round << 16 | page
}
