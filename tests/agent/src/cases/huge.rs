// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `huge/*`: huge pages stay huge where they can. A page that comes home while others may clear their entries of it is
//! split before, since the kernel does not clear those right.

mod moved_aside;

use super::support::gate::Gate;
use super::support::inject::Faults;
use super::support::prelude::*;
use super::support::{driver, nodes, proc_self};
use hmm_uapi::Stats;
use rustix::mm::{Advice, MremapFlags, mremap_fixed};
use serde_json::json;
use std::ptr::NonNull;
use std::sync::Barrier;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("huge/there-and-back-anon-thp", there_and_back),
    Case::new("huge/home-by-fault-anon-thp", home_by_fault),
    Case::new("huge/home-by-eviction-anon-thp", home_by_eviction),
    Case::new("huge/cleared-during-request-anon-thp", || {
        cleared("bulk", |mover, memory| {
            mover
                .call(
                    memory.part(0..HUGE / PAGE),
                    Direction::ToSystem,
                    MigrateFlags::default(),
                )
                .map(drop)
        })
    }),
    Case::new("huge/cleared-during-fault-anon-thp", || {
        cleared("urgent", |_, memory| {
            memory.touch(0..1);
            Ok(())
        })
    }),
    Case::new("huge/unwanted-stays-single-anon-4k", unwanted),
    Case::new("huge/switched-off-anon-thp", switched_off),
    Case::new("huge/beyond-the-limit-anon-thp", beyond_the_limit),
    Case::new(
        "huge/shared-beyond-the-limit-anon-thp",
        shared_beyond_the_limit,
    ),
    Case::new("huge/shared-by-fault-anon-thp", shared_by_fault),
    Case::new("huge/shared-by-migrate-anon-thp", shared_by_migrate),
    Case::new("huge/shared-by-eviction-anon-thp", shared_by_eviction),
    Case::new("huge/shared-by-unbind-anon-thp", shared_by_unbind),
    Case::new("huge/inherited-anon-thp", inherited),
    Case::new("huge/many-threads-share-anon-thp", many_threads_share),
    Case::new("huge/moved-by-mremap-anon-thp", moved_by_mremap),
    Case::new("huge/moved-aside-and-walked-anon-thp", moved_aside::walk).within(60),
];

/// Huge pages of a case.
const COUNT: usize = 4;
/// Their single pages.
const PAGES: usize = COUNT * HUGE / PAGE;

/// How many bytes of the mapping are huge pages, on whichever side.
fn huge_bytes(memory: &Memory) -> Result<u64> {
    proc_self::smaps(memory.range().start, "AnonHugePages")
}

fn expect_huge(memory: &Memory, what: &str) -> Result<()> {
    let huge = huge_bytes(memory)?;
    let all = memory.length() as u64;
    ensure!(huge == all, "{what}: {huge} bytes of {all} are huge pages");
    Ok(())
}

fn expect_single(memory: &Memory, what: &str) -> Result<()> {
    let huge = huge_bytes(memory)?;
    ensure!(huge == 0, "{what}: {huge} bytes are huge pages");
    Ok(())
}

/// Huge pages with every byte of seed 1.
fn filled() -> Result<Memory> {
    let mut memory = Memory::huge(COUNT)?;
    memory.fill(1);
    match huge_bytes(&memory)? == memory.length() as u64 {
        true => Ok(memory),
        false => Err(skip("the kernel gives no huge pages")),
    }
}

/// The same on the device, in a mapping that has since been told to want no more huge pages.
fn resident(mover: &Mover) -> Result<Memory> {
    let memory = filled()?;
    mover.all_to_device(memory.range())?;
    expect_huge(&memory, "on the device")?;
    // From now on khugepaged makes no huge pages of single ones.
    memory.advise(0..PAGES, Advice::LinuxNoHugepage)?;
    Ok(memory)
}

fn there_and_back() -> Result<()> {
    let mover = Mover::open()?;
    let memory = resident(&mover)?;
    mover.to_system(memory.range())?.expect(PAGES, none())?;
    expect_huge(&memory, "home by a request")?;
    mover.expect_in_system(memory.range())?;
    memory.check(1)
}

fn home_by_fault() -> Result<()> {
    let mover = Mover::open()?;
    let memory = resident(&mover)?;
    memory.check(1)?;
    mover.expect_in_system(memory.range())?;
    expect_huge(&memory, "home by faults")
}

fn home_by_eviction() -> Result<()> {
    let mover = Mover::on(&nodes::second()?)?;
    let memory = resident(&mover)?;
    mover.device.evict_bytes(1 << 40)?;
    mover.expect_in_system(memory.range())?;
    expect_huge(&memory, "evicted")?;
    memory.check(1)
}

/// A task that zaps the entry of a huge page while it migrates back blocks until it is there.
fn cleared(queue: &str, bring_home: impl Fn(&Mover, &Memory) -> Result<()>) -> Result<()> {
    let mover = Mover::open()?;
    let faults = Faults::of_first_device()?;
    let memory = resident(&mover)?;
    faults
        .add(json!({ "action": "delay", "queue": queue, "microseconds": 1_000_000, "count": 1 }))?;
    let before = mover.device.stats()?;
    let is_there = Barrier::new(2);
    let after = std::thread::scope(|scope| -> Result<Stats> {
        let clearing = scope.spawn(|| -> Result<Stats> {
            is_there.wait();
            while mover.device.stats()?.batches == before.batches {
                std::thread::sleep(Duration::from_millis(1));
            }
            memory.advise(0..HUGE / PAGE, Advice::LinuxDontNeed)?;
            Ok(mover.device.stats()?)
        });
        // A thread that begins maps memory, which would wait for the batch.
        is_there.wait();
        bring_home(&mover, &memory)?;
        match clearing.join() {
            Ok(after) => after,
            Err(_) => bail!("a thread panicked"),
        }
    })?;
    let home = after.bytes_to_system - before.bytes_to_system;
    ensure!(
        home == HUGE as u64,
        "{home} bytes of the page were home when its entry was cleared"
    );
    memory.check_zero(0..HUGE / PAGE)?;
    memory.check_pages(HUGE / PAGE..PAGES, 1)
}

/// What the mapping does not want to be huge is not made huge by a migration, and what is huge stays movable.
fn unwanted() -> Result<()> {
    let mover = Mover::open()?;
    let memory = resident(&mover)?;
    mover.to_system(memory.range())?.expect(PAGES, none())?;
    mover.all_to_device(memory.range())?;
    expect_single(&memory, "unwanted")?;
    memory.check(1)
}

/// A driver that was told to split huge pages does.
fn switched_off() -> Result<()> {
    let _driver = driver::Reloaded::with("huge_pages=0")?;
    let mover = Mover::open()?;
    let memory = filled()?;
    mover.all_to_device(memory.range())?;
    expect_single(&memory, "on the device")?;
    memory.check(1)
}

/// Moves as much as a limit of a huge page and a half lets pass, which splits a huge page.
fn up_to_the_limit(mover: &Mover, memory: &Memory) -> Result<()> {
    const LIMIT: usize = HUGE + HUGE / 2;
    mover
        .device
        .set_limit(Process::Caller, Some(LIMIT as u64))?;
    let over = PAGES - LIMIT / PAGE;
    mover
        .to_device(memory.range())?
        .expect(PAGES - over, &[(SkipReason::OverLimit, over)])?;
    // Several workers share the request, so which pages these are is open.
    let residency = mover.device.residency(Process::Caller, memory.range())?;
    ensure!(
        residency.device_pages == (LIMIT / PAGE) as u64,
        "{} pages are on the device, and the limit is {}",
        residency.device_pages,
        LIMIT / PAGE
    );
    Ok(())
}

fn beyond_the_limit() -> Result<()> {
    let mover = Mover::open()?;
    let memory = filled()?;
    up_to_the_limit(&mover, &memory)?;
    memory.check(1)
}

/// The kernel splits a huge page that is given single destinations, but in one mapping only.
fn shared_beyond_the_limit() -> Result<()> {
    let mover = Mover::open()?;
    let memory = filled()?;
    let begin = Gate::new()?;
    let child = fork(|| {
        begin.wait()?;
        memory.check(1)
    })?;
    up_to_the_limit(&mover, &memory)?;
    begin.open()?;
    memory.check(1)?;
    child.wait()
}

/// A child that shares what is on the device, and checks it when the gate opens.
fn sharer(memory: &Memory, begin: &Gate) -> Result<Child> {
    fork(|| {
        begin.wait()?;
        memory.check(1)?;
        expect_single(memory, "in the child")
    })
}

fn shared_by_fault() -> Result<()> {
    let mover = Mover::open()?;
    let memory = resident(&mover)?;
    let begin = Gate::new()?;
    let child = sharer(&memory, &begin)?;
    expect_huge(&memory, "shared")?;
    begin.open()?;
    memory.check(1)?;
    child.wait()?;
    mover.expect_in_system(memory.range())
}

fn shared_by_migrate() -> Result<()> {
    let mover = Mover::open()?;
    let memory = resident(&mover)?;
    let begin = Gate::new()?;
    let child = sharer(&memory, &begin)?;
    mover.to_system(memory.range())?.expect(PAGES, none())?;
    expect_single(&memory, "home by a request")?;
    begin.open()?;
    child.wait()?;
    memory.check(1)
}

fn shared_by_eviction() -> Result<()> {
    let mover = Mover::on(&nodes::second()?)?;
    let memory = resident(&mover)?;
    let begin = Gate::new()?;
    let child = sharer(&memory, &begin)?;
    mover.device.evict_bytes(1 << 40)?;
    mover.expect_in_system(memory.range())?;
    expect_single(&memory, "evicted")?;
    begin.open()?;
    child.wait()?;
    memory.check(1)
}

fn shared_by_unbind() -> Result<()> {
    let node = nodes::second()?;
    let count = nodes::all().len();
    let device = (driver::bound_devices()?.into_iter().nth(1))
        .context("the driver is bound to one device only")?;
    let memory = resident(&Mover::on(&node)?)?;
    let begin = Gate::new()?;
    let child = sharer(&memory, &begin)?;
    driver::unbind(&device)?;
    let unbound = expect_single(&memory, "unbound");
    driver::bind(&device, count)?;
    unbound?;
    begin.open()?;
    child.wait()?;
    memory.check(1)
}

/// The process that moved the pages is gone; the driver does not know the one that maps them now.
fn inherited() -> Result<()> {
    let mover = Mover::open()?;
    let (gone, checked) = (Gate::new()?, Gate::new()?);
    let parent = fork(|| {
        let memory = resident(&Mover::open()?)?;
        let heir = fork(|| {
            gone.wait()?;
            memory.check(1)?;
            expect_single(&memory, "inherited")?;
            checked.open()
        })?;
        // The heir outlives this process, which therefore does not wait for it.
        std::mem::forget(heir);
        Ok(())
    })?;
    parent.wait()?;
    ensure!(
        mover.resident()? >= (PAGES * PAGE) as u64,
        "the heir's pages are not on the device any more"
    );
    gone.open()?;
    checked.wait()
}

/// Every thread of two processes touches every page at the same time, as long as there are shared ones.
fn many_threads_share() -> Result<()> {
    const THREADS: usize = 8;
    let mover = Mover::open()?;
    for round in 0..5 {
        let memory = resident(&mover).with_context(|| format!("round {round}"))?;
        let begin = Gate::new()?;
        let touch = || -> Result<()> {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS)
                    .map(|thread| {
                        let first = thread * PAGES / THREADS;
                        let memory = &memory;
                        scope.spawn(move || {
                            memory.check_pages(first..PAGES, 1)?;
                            memory.check_pages(0..first, 1)
                        })
                    })
                    .collect();
                for thread in threads {
                    match thread.join() {
                        Ok(result) => result?,
                        Err(_) => bail!("a thread panicked"),
                    }
                }
                Ok(())
            })
        };
        let child = fork(|| {
            begin.wait()?;
            touch()
        })?;
        begin.open()?;
        touch()?;
        child.wait()?;
        mover.expect_in_system(memory.range())?;
    }
    Ok(())
}

/// At its new place a huge page is not aligned any more, so many small entries map it.
fn moved_by_mremap() -> Result<()> {
    let mover = Mover::on(&nodes::second()?)?;
    let memory = resident(&mover)?;
    // More than is needed; the rest stays until the process ends.
    let (place, _) = Memory::anonymous(PAGES + 2 * HUGE / PAGE)?.into_raw();
    let odd = (place.as_ptr() as usize).next_multiple_of(HUGE) + PAGE;
    let (start, length) = memory.into_raw();
    // SAFETY: The owners of both mappings were just given up, so nothing else refers to them.
    let moved = unsafe {
        let flags = MremapFlags::MAYMOVE;
        mremap_fixed(start.as_ptr().cast(), length, length, flags, odd as *mut _)
    };
    let moved = NonNull::new(moved.context("mremap")?.cast()).context("a mapping at address 0")?;
    // SAFETY: `mremap` has just made this mapping.
    let memory = unsafe { Memory::adopt(moved, PAGES) };
    mover.expect_on_device(memory.range())?;
    mover.device.evict_bytes(1 << 40)?;
    mover.expect_in_system(memory.range())?;
    memory.check(1)
}
