// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! CPU faults: a program cannot be told that there is no memory, so that the kernel has to try again.

use crate::cases::support::failing::{Failing, Steps};
use crate::cases::support::prelude::*;

pub(super) const CASES: &[Case] = &[
    Case::new("nomem/fault-read-anon-4k", || {
        sweep(Memory::single(PAGES)?, |memory| memory.touch(0..1))
    })
    .within(300),
    Case::new("nomem/fault-write-anon-4k", || {
        sweep(Memory::single(PAGES)?, rewrite)
    })
    .within(300),
    Case::new("nomem/fault-write-anon-thp", || {
        sweep(Memory::huge(1)?, rewrite)
    })
    .within(300),
    Case::new("nomem/fault-shared-anon-4k", shared).within(300),
];

const PAGES: usize = 24;

/// Writes what is there already.
fn rewrite(memory: &Memory) {
    let word = memory.word(0);
    word.fetch_xor(1, std::sync::atomic::Ordering::Relaxed);
    word.fetch_xor(1, std::sync::atomic::Ordering::Relaxed);
}

fn sweep(mut memory: Memory, fault: fn(&Memory)) -> Result<()> {
    let mover = Mover::open()?;
    memory.fill(1);
    let memory = memory;
    Failing::new()?.sweep(
        Steps::Widening,
        || mover.all_to_device(memory.range()),
        |()| fault(&memory),
        |()| memory.check(1),
    )
}

/// A page that parent and child share on the device is copied for the first writer.
fn shared() -> Result<()> {
    let mover = Mover::open()?;
    let failing = Failing::new()?;
    failing.sweep(
        Steps::Every,
        || {
            let mut memory = Memory::single(PAGES)?;
            memory.fill(1);
            mover.all_to_device(memory.range())?;
            let go = crate::cases::support::gate::Gate::new()?;
            let child = fork(|| {
                go.wait()?;
                memory.check(1)
            })?;
            Ok((memory, go, child))
        },
        |(memory, go, child)| {
            rewrite(&memory);
            (memory, go, child)
        },
        |(memory, go, child)| {
            memory.check(1)?;
            go.open()?;
            child.wait()
        },
    )
}
