// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a reader is going to need is fetched while it goes on.

use super::on_device;
use crate::cases::support::prelude::*;
use hmm_uapi::client::Advice;

pub(super) const CASES: &[Case] = &[
    Case::new("fault/fetched-ahead-anon-4k", fetched_ahead).within(120),
    Case::new("fault/not-fetched-ahead-anon-4k", not_fetched_ahead),
    Case::new(
        "fault/fetched-ahead-and-moved-back-anon-4k",
        fetched_and_moved_back,
    )
    .within(120),
];

/// Pages that came home, by faults and altogether, while `work` was done and for as long as it takes all of `memory`.
fn came_home(
    mover: &Mover,
    memory: &Memory,
    work: impl FnOnce() -> Result<()>,
) -> Result<(u64, u64)> {
    let before = mover.device.stats()?;
    work()?;
    // What was fetched ahead of the reader is there, since it was read.
    mover.expect_in_system(memory.range())?;
    let after = mover.device.stats()?;
    let pages = |bytes: u64| bytes / PAGE as u64;
    Ok((
        pages(after.bytes_by_fault - before.bytes_by_fault),
        pages(after.bytes_to_system - before.bytes_to_system),
    ))
}

/// Most of what a long read needs is fetched while it goes on. How much is a race, but never nothing.
fn fetched_ahead() -> Result<()> {
    const PAGES: usize = 96 << 8;
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?, 1)?;
    let (by_fault, _) = came_home(&mover, &memory, || memory.check(1))?;
    ensure!(
        by_fault < PAGES as u64,
        "all of {PAGES} pages came by faults"
    );
    // The same downwards.
    mover.all_to_device(memory.range())?;
    let (by_fault, _) = came_home(&mover, &memory, || {
        (0..PAGES)
            .rev()
            .try_for_each(|page| memory.check_pages(page..page + 1, 1))
    })?;
    ensure!(
        by_fault < PAGES as u64,
        "all of {PAGES} pages came by faults, downwards"
    );
    Ok(())
}

/// With advice on the window of a fault, no more than that is migrated back.
fn not_fetched_ahead() -> Result<()> {
    const PAGES: usize = 16 << 8;
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?, 1)?;
    let advice = Advice {
        window: Some((2 << 20, 2 << 20)),
        ..Advice::default()
    };
    mover
        .device
        .advise(Process::Caller, memory.range(), advice)?;
    let (by_fault, all) = came_home(&mover, &memory, || memory.check(1))?;
    ensure!(
        by_fault == PAGES as u64 && all == by_fault,
        "of {PAGES} pages {by_fault} came by faults, {all} altogether"
    );
    Ok(())
}

/// What is still being fetched for a reader does not undo a request that comes after it.
fn fetched_and_moved_back() -> Result<()> {
    const PAGES: usize = 32 << 8;
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?, 1)?;
    for _ in 0..20 {
        // Up to about half, where the worker is ahead.
        memory.check_pages(0..PAGES / 2, 1)?;
        mover.all_to_device(memory.range())?;
        std::thread::yield_now();
        mover.expect_on_device(memory.range())?;
    }
    memory.check(1)
}
