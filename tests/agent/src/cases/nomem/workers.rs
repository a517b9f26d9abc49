// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Allocations that the driver makes in whatever thread, its own workers among them.

use super::call_done_or_no_memory;
use crate::cases::support::failing_driver::{Kind, sweep};
use crate::cases::support::prelude::*;
use hmm_uapi::client::MigrateRequest;
use std::cell::Cell;

pub(super) const CASES: &[Case] = &[
    Case::new("nomem/driver-objects-to-device-anon-4k", || {
        moves(Kind::Objects, Direction::ToDevice)
    })
    .within(300),
    Case::new("nomem/driver-objects-to-system-anon-4k", || {
        moves(Kind::Objects, Direction::ToSystem)
    })
    .within(300),
    Case::new("nomem/driver-pages-to-system-anon-4k", || {
        moves(Kind::Pages, Direction::ToSystem)
    })
    .within(300),
    Case::new("nomem/driver-pages-fault-anon-4k", fault).within(300),
];

/// More than one batch, so that several are under way, and few enough for a try for each.
const PAGES: usize = 40;

fn moves(kind: Kind, direction: Direction) -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let memory = memory;
    let without_page = Cell::new(0);
    sweep(
        kind,
        || match direction {
            Direction::ToDevice => memory.check(1),
            Direction::ToSystem => mover.all_to_device(memory.range()),
        },
        || {
            mover.device.migrate(&MigrateRequest {
                process: Process::Caller,
                range: memory.range(),
                direction,
                flags: MigrateFlags::default(),
            })
        },
        |result| {
            let skipped = result.as_ref().map(|report| report.skipped);
            let here = skipped.map_or(0, |skipped| skipped.get(SkipReason::NoSystemMemory));
            without_page.set(without_page.get() + here);
            call_done_or_no_memory(result)?;
            memory.check(1)?;
            mover.all_to_device(memory.range())?;
            memory.check(1)
        },
    )?;
    ensure!(
        (without_page.get() > 0) == matches!(kind, Kind::Pages),
        "{kind:?} failed, and {} pages found no page to move to",
        without_page.get()
    );
    Ok(())
}

fn fault() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let memory = memory;
    sweep(
        Kind::Pages,
        || mover.all_to_device(memory.range()),
        || memory.touch(PAGES / 2..PAGES / 2 + 1),
        |()| memory.check(1),
    )
}
