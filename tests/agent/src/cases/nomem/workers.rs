// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Allocations that the driver makes in whatever thread, its own workers among them.

use super::call_done_or_no_memory;
use crate::cases::support::driver;
use crate::cases::support::failing_driver::{Kind, sweep, while_all_fail};
use crate::cases::support::prelude::*;
use hmm_uapi::PrefetchState;
use hmm_uapi::client::{MigrateRequest, PrefetchRequest};
use rustix::io::Errno;

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
    Case::new("nomem/driver-objects-helpers-anon-4k", helpers).within(600),
    Case::new("nomem/driver-objects-prefetch-anon-4k", prefetches).within(600),
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

/// Page tables of a request that several threads share.
const TABLES: usize = 6;
/// Pages in use of each.
const USED: usize = 8;

/// Memory that a request divides into pieces, of which few pages are in use.
fn divided() -> Result<Memory> {
    let mut memory = Memory::single(TABLES * HUGE / PAGE)?;
    for table in 0..TABLES {
        memory.fill_pages(used(table), 1);
    }
    Ok(memory)
}

fn used(table: usize) -> std::ops::Range<usize> {
    let first = table * HUGE / PAGE + 100;
    first..first + USED
}

fn check_used(memory: &Memory) -> Result<()> {
    (0..TABLES).try_for_each(|table| memory.check_pages(used(table), 1))
}

/// A driver that has no scratch space yet, so that the threads of a request need some.
fn fresh_driver() -> Result<()> {
    driver::unload()?;
    driver::load()
}

/// A thread that helps finds no memory. The others do its part, or the call fails as a whole with `ENOMEM`.
fn helpers() -> Result<()> {
    let memory = divided()?;
    sweep(
        Kind::LargeObjects,
        || {
            check_used(&memory)?;
            fresh_driver()
        },
        || {
            Mover::open().map(|mover| {
                mover.device.migrate(&MigrateRequest {
                    process: Process::Caller,
                    range: memory.range(),
                    direction: Direction::ToDevice,
                    flags: MigrateFlags::default(),
                })
            })
        },
        |result| {
            // The node may not open.
            let Ok(result) = result else {
                return check_used(&memory);
            };
            if let Some(report) = call_done_or_no_memory(result)? {
                let pages = report.pages_moved + report.skipped.total();
                ensure!(
                    !report.interrupted && pages == memory.pages() as u64,
                    "{pages} of {} pages are accounted for: {report:?}",
                    memory.pages()
                );
            }
            check_used(&memory)
        },
    )
}

/// A prefetch that is done has counted every page; one that found no memory says so.
fn prefetches() -> Result<()> {
    let memory = divided()?;
    sweep(
        Kind::LargeObjects,
        || {
            check_used(&memory)?;
            fresh_driver()
        },
        || {
            let mover = Mover::open()?;
            let id = mover.device.prefetch(&PrefetchRequest {
                process: Process::Caller,
                range: memory.range(),
                direction: Some(Direction::ToDevice),
                flags: MigrateFlags::default(),
            })?;
            mover.device.wait(id, None).map_err(anyhow::Error::from)
        },
        |result| {
            // The node may not open, or the prefetch not begin.
            if let Ok(report) = result {
                let pages = report.pages_moved + report.skipped.total();
                let is_right = match report.state {
                    PrefetchState::Done => pages == memory.pages() as u64,
                    PrefetchState::Failed => report.error == Some(Errno::NOMEM),
                    _ => false,
                };
                ensure!(is_right, "{pages} pages are accounted for: {report:?}");
            }
            check_used(&memory)
        },
    )
}
