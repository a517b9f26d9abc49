// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Moving memory.

use super::call_done_or_no_memory;
use crate::cases::support::failing::{Failing, Steps};
use crate::cases::support::prelude::*;
use hmm_uapi::client::MigrateRequest;

pub(super) const CASES: &[Case] = &[
    Case::new("nomem/to-device-anon-4k", || {
        sweep(Memory::single(PAGES)?, Direction::ToDevice, Steps::Every)
    })
    .within(300),
    Case::new("nomem/to-device-anon-thp", || {
        sweep(Memory::huge(1)?, Direction::ToDevice, Steps::Widening)
    })
    .within(300),
    Case::new("nomem/to-device-populate", populate).within(300),
    Case::new("nomem/to-system-anon-4k", || {
        sweep(Memory::single(PAGES)?, Direction::ToSystem, Steps::Every)
    })
    .within(300),
    Case::new("nomem/to-system-anon-thp", || {
        sweep(Memory::huge(1)?, Direction::ToSystem, Steps::Widening)
    })
    .within(300),
    Case::new("nomem/fork-anon-4k", forked).within(300),
];

/// Enough for a few allocations of every kind.
const PAGES: usize = 24;

fn sweep(mut memory: Memory, direction: Direction, steps: Steps) -> Result<()> {
    let mover = Mover::open()?;
    let range = memory.range();
    memory.fill(1);
    let memory = memory;
    Failing::new()?.sweep(
        steps,
        || match direction {
            // Reading migrates everything back.
            Direction::ToDevice => memory.check(1),
            Direction::ToSystem => mover.all_to_device(range.clone()),
        },
        |()| {
            mover.device.migrate(&MigrateRequest {
                process: Process::Caller,
                range: range.clone(),
                direction,
                flags: MigrateFlags::default(),
            })
        },
        |result| {
            if let Some(report) = call_done_or_no_memory(result)? {
                let pages = report.pages_moved + report.skipped.total();
                ensure!(
                    pages == memory.pages() as u64,
                    "{pages} of {} pages are accounted for: {report:?}",
                    memory.pages()
                );
            }
            memory.check(1)?;
            mover.all_to_device(range.clone())?;
            memory.check(1)
        },
    )
}

/// Holes become pages of the device, or stay holes.
fn populate() -> Result<()> {
    let mover = Mover::open()?;
    let failing = Failing::new()?;
    failing.sweep(
        Steps::Every,
        || Memory::single(PAGES),
        |memory| {
            let result = mover.device.migrate(&MigrateRequest {
                process: Process::Caller,
                range: memory.range(),
                direction: Direction::ToDevice,
                flags: MigrateFlags::POPULATE,
            });
            (memory, result)
        },
        |(mut memory, result)| {
            call_done_or_no_memory(result)?;
            memory.check_zero(0..PAGES)?;
            memory.fill(2);
            mover.all_to_device(memory.range())?;
            memory.check(2)
        },
    )
}

/// A child shares pages on the device with its parent, or there is no child.
fn forked() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let memory = memory;
    Failing::new()?.sweep(
        Steps::Every,
        || mover.all_to_device(memory.range()),
        |()| fork(|| memory.check(1)),
        |child| {
            if let Ok(child) = child {
                child.wait()?;
            }
            memory.check(1)?;
            mover.all_to_device(memory.range())?;
            fork(|| memory.check(1))?.wait()?;
            memory.check(1)
        },
    )
}
