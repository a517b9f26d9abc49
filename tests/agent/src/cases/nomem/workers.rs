// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Allocations that the driver makes in whatever thread, its own workers among them.

use super::call_done_or_no_memory;
use crate::cases::support::failing_driver::{Kind, sweep, while_all_fail};
use crate::cases::support::prelude::*;
use hmm_uapi::client::MigrateRequest;

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
    Case::new("nomem/no-pages-to-system-anon-4k", no_pages),
];

/// More than one batch, so that several are under way, and few enough for a try for each.
const PAGES: usize = 40;

fn moves(kind: Kind, direction: Direction) -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let memory = memory;
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
            call_done_or_no_memory(result)?;
            memory.check(1)?;
            mover.all_to_device(memory.range())?;
            memory.check(1)
        },
    )
}

/// There is no page for any that is to come home. All stay, and are counted.
fn no_pages() -> Result<()> {
    const TRIES: usize = 5;
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let memory = memory;
    // What is made once is made.
    mover.all_to_device(memory.range())?;
    mover.to_system(memory.range())?;
    mover.all_to_device(memory.range())?;
    for _ in 0..TRIES {
        let request = MigrateRequest {
            process: Process::Caller,
            range: memory.range(),
            direction: Direction::ToSystem,
            flags: MigrateFlags::default(),
        };
        let result = while_all_fail(Kind::Pages, || mover.device.migrate(&request))?;
        // The allocator of objects may have needed a page.
        let Some(report) = call_done_or_no_memory(result)? else {
            continue;
        };
        let without_page = report.skipped.get(SkipReason::NoSystemMemory);
        ensure!(
            report.pages_moved == 0 && without_page == PAGES as u64,
            "{report:?}"
        );
        mover.expect_on_device(memory.range())?;
        return memory.check(1);
    }
    bail!("none of {TRIES} requests got as far as to the pages")
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
