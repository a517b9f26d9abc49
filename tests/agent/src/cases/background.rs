// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `background/*`: what the kernel does with memory of its own accord, on memory that is moved at the same time.

mod ksm;

use super::support::cgroup::MemoryCgroup;
use super::support::prelude::*;
use super::support::proc_self;
use super::support::setting;
use super::support::swap::Swap;
use rustix::mm::Advice;
use std::ops::Range;
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::new("background/swap-anon-4k", swap),
    Case::new("background/swap-off-anon-4k", swap_off),
    Case::new("background/swap-cgroup-limit-anon-4k", swap_under_limit).within(300),
    Case::new("background/collapse-anon-thp", collapse),
    Case::new("background/khugepaged-anon-thp", khugepaged),
    Case::new("background/ksm-anon-4k", ksm::merging),
    Case::new("background/ksm-from-swap-anon-4k", ksm::from_swap),
    Case::new("background/ksm-given-up-anon-4k", ksm::given_up),
];

const PAGES: usize = 600;
/// How long a thread of the kernel is let work on memory that is moved.
const TIME: Duration = Duration::from_secs(5);

/// Moves all memory back and forth for a while, and checks it.
fn churn(memory: &Memory, seed: u64) -> Result<()> {
    churn_part(memory, 0..memory.pages(), seed)
}

/// Moves some pages back and forth for a while, and checks all.
fn churn_part(memory: &Memory, pages: Range<usize>, seed: u64) -> Result<()> {
    let mover = Mover::open()?;
    let end = Instant::now() + TIME;
    while Instant::now() < end {
        for direction in [Direction::ToDevice, Direction::ToSystem] {
            mover.call(
                memory.part(pages.clone()),
                direction,
                MigrateFlags::default(),
            )?;
        }
        mover.call(
            memory.part(pages.clone()),
            Direction::ToDevice,
            MigrateFlags::default(),
        )?;
        memory.check(seed)?;
    }
    Ok(())
}

fn page_out(memory: &Memory) -> Result<()> {
    memory.advise(0..memory.pages(), Advice::LinuxPageOut)
}

/// Moves what can move. The kernel holds a page for a while that has just come from swap.
fn mostly_to_device(mover: &Mover, memory: &Memory) -> Result<()> {
    let moved = mover.to_device(memory.range())?;
    let there = moved.pages + moved.skipped(SkipReason::Already);
    ensure!(
        there + moved.skipped(SkipReason::Pinned) == memory.pages() && there > memory.pages() / 2,
        "pages were skipped for another reason, or most of them: {moved:?}"
    );
    Ok(())
}

fn swapped(memory: &Memory) -> Result<u64> {
    proc_self::smaps(memory.range().start, "Swap")
}

/// What is in swap stays there, and what is on the device does not go there.
fn swap() -> Result<()> {
    let _swap = Swap::new(4 << 10)?;
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    page_out(&memory)?;
    let out = swapped(&memory)? as usize / PAGE;
    ensure!(out > PAGES / 2, "{out} pages went to swap");
    let moved = mover.call(memory.range(), Direction::ToDevice, MigrateFlags::default())?;
    ensure!(
        moved.pages + moved.skipped(SkipReason::Swapped) >= PAGES - 16,
        "pages were skipped for another reason: {moved:?}"
    );
    ensure!(
        moved.skipped(SkipReason::Swapped) > 0,
        "nothing was in swap: {moved:?}"
    );
    memory.check(1)?;
    mostly_to_device(&mover, &memory)?;
    let on_device = mover.resident()?;
    page_out(&memory)?;
    ensure!(
        mover.resident()? == on_device,
        "pages left the device for swap"
    );
    memory.check(1)?;
    // Pages that still have a place in swap.
    page_out(&memory)?;
    memory.touch(0..PAGES);
    mover.to_device(memory.range())?;
    memory.check(1)
}

/// The kernel brings all memory back from swap and walks over pages on the device.
fn swap_off() -> Result<()> {
    let mut swap = Swap::new(4 << 10)?;
    let mover = Mover::open()?;
    let mut memory = Memory::single(2 * PAGES)?;
    memory.fill(1);
    page_out(&memory)?;
    memory.touch(0..PAGES);
    mover.to_device(memory.part(0..PAGES))?;
    let on_device = mover.resident()?;
    ensure!(on_device > 0, "nothing is on the device");
    swap.off()?;
    ensure!(mover.resident()? == on_device, "pages left the device");
    memory.check(1)?;
    mostly_to_device(&mover, &memory)?;
    memory.check(1)
}

/// Twice as much memory as the process may have: the kernel swaps while pages come and go.
fn swap_under_limit() -> Result<()> {
    const WHOLE: usize = 16 << 8;
    let _swap = Swap::new(16 << 10)?;
    let cgroup = MemoryCgroup::new("swap")?;
    fork(|| {
        cgroup.enter()?;
        let mut memory = Memory::single(WHOLE)?;
        cgroup.limit(cgroup.current()? + (WHOLE * PAGE * 3 / 4) as u64)?;
        memory.fill(1);
        let mover = Mover::open()?;
        // Pages on the device stay charged and cannot be reclaimed: a group that has nothing else is out of memory as
        // soon as a page comes back from swap.
        for part in 0..8 {
            let first = part * WHOLE / 8;
            let part = memory.part(first..first + WHOLE / 8);
            mover.to_device(part.clone())?;
            mover.to_system(part)?;
        }
        memory.check(1)?;
        churn_part(&memory, 0..WHOLE / 2, 1)
    })?
    .wait()
}

/// Pages on the device are not put together into a huge page, and not lost by the attempt.
fn collapse() -> Result<()> {
    const MADV_COLLAPSE: i32 = 25;
    let mover = Mover::open()?;
    let mut memory = Memory::huge(1)?;
    memory.advise(0..512, Advice::LinuxNoHugepage)?;
    memory.fill(1);
    memory.advise(0..512, Advice::LinuxHugepage)?;
    for pages in [0..1, 0..512, 511..512, 100..300] {
        mover.to_device(memory.part(pages))?;
        // It may succeed, by bringing pages home, or not.
        let _ = memory.advise_raw(0..512, MADV_COLLAPSE);
        memory.check(1)?;
    }
    memory
        .advise_raw(0..512, MADV_COLLAPSE)
        .context("memory that is at home is not collapsed")?;
    mover.all_to_device(memory.range())?;
    memory.check(1)
}

fn khugepaged() -> Result<()> {
    let _settings = setting::khugepaged()?;
    let mut memory = Memory::huge(2)?;
    memory.advise(0..memory.pages(), Advice::LinuxNoHugepage)?;
    memory.fill(1);
    memory.advise(0..memory.pages(), Advice::LinuxHugepage)?;
    churn(&memory, 1)
}
