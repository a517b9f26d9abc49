// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `fork/*`: pages on the device that several processes share.

use super::support::gate::Gate;
use super::support::prelude::*;
use std::process::Command;

pub(super) const CASES: &[Case] = &[
    Case::new("fork/child-reads-anon-4k", child_reads),
    Case::new("fork/child-writes-anon-4k", child_writes),
    Case::new("fork/parent-writes-anon-4k", parent_writes),
    Case::new("fork/both-write-anon-thp", both_write_huge),
    Case::new("fork/grandchild-anon-4k", grandchild),
    Case::new("fork/child-exits-first-anon-4k", child_exits_first),
    Case::new("fork/parent-exits-first-anon-4k", parent_exits_first),
    Case::new("fork/move-shared-pages-anon-4k", move_shared),
    Case::new("fork/move-after-cow-anon-4k", move_after_cow),
    Case::new("fork/many-children-anon-4k", many_children),
    Case::new("fork/vfork-exec-anon-4k", vfork_and_exec),
    Case::new("fork/while-moving-anon-4k", while_moving),
];

const PAGES: usize = 300;

fn on_device(mover: &Mover, mut memory: Memory) -> Result<Memory> {
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    Ok(memory)
}

fn child_reads() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?)?;
    fork(|| memory.check(1))?.wait()?;
    memory.check(1)
}

fn child_writes() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(PAGES)?)?;
    let child = fork(|| {
        memory.fill_pages(0..PAGES / 2, 2);
        memory.check_pages(0..PAGES / 2, 2)?;
        memory.check_pages(PAGES / 2..PAGES, 1)
    })?;
    child.wait()?;
    memory.check(1)
}

fn parent_writes() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(PAGES)?)?;
    let written = Gate::new()?;
    let child = fork(|| {
        written.wait()?;
        memory.check(1)?;
        memory.fill(3);
        memory.check(3)
    })?;
    memory.fill(2);
    written.open()?;
    child.wait()?;
    memory.check(2)
}

fn both_write_huge() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::huge(2)?)?;
    let written = Gate::new()?;
    let child = fork(|| {
        memory.fill_pages(100..600, 2);
        written.open()?;
        memory.check_pages(0..100, 1)?;
        memory.check_pages(100..600, 2)?;
        memory.check_pages(600..1024, 1)
    })?;
    memory.fill_pages(400..900, 3);
    written.wait()?;
    child.wait()?;
    memory.check_pages(0..400, 1)?;
    memory.check_pages(400..900, 3)?;
    memory.check_pages(900..1024, 1)
}

fn grandchild() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(PAGES)?)?;
    let child = fork(|| {
        memory.fill_pages(0..100, 2);
        let range = memory.range();
        let grandchild = fork(|| {
            memory.check_pages(0..100, 2)?;
            memory.check_pages(100..PAGES, 1)?;
            memory.fill_pages(50..150, 3);
            memory.check_pages(50..150, 3)
        })?;
        Mover::open()?.to_device(range)?;
        grandchild.wait()?;
        memory.check_pages(0..100, 2)?;
        memory.check_pages(100..PAGES, 1)
    })?;
    child.wait()?;
    memory.check(1)
}

fn child_exits_first() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?)?;
    let resident = mover.resident()?;
    fork(|| Ok(()))?.wait()?;
    mover.expect_on_device(memory.range())?;
    ensure!(
        mover.resident()? == resident,
        "the child's end changed what is on the device"
    );
    memory.check(1)
}

fn parent_exits_first() -> Result<()> {
    let mover = Mover::open()?;
    let (gone, checked) = (Gate::new()?, Gate::new()?);
    let parent = fork(|| {
        let mover = Mover::open()?;
        let mut memory = on_device(&mover, Memory::single(PAGES)?)?;
        let child = fork(|| {
            gone.wait()?;
            memory.check_pages(0..PAGES / 2, 1)?;
            memory.fill_pages(PAGES / 2..PAGES, 2);
            memory.check_pages(PAGES / 2..PAGES, 2)?;
            checked.open()
        })?;
        // The grandchild outlives this process, which therefore does not wait for it.
        std::mem::forget(child);
        Ok(())
    })?;
    parent.wait()?;
    ensure!(
        mover.resident()? >= (PAGES * PAGE) as u64,
        "the pages of the child are not on the device any more"
    );
    gone.open()?;
    checked.wait()
}

/// Pages that two processes share move for both, on a request by either.
fn move_shared() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let (moved, check) = (Gate::new()?, Gate::new()?);
    let child = fork(|| {
        let mover = Mover::open()?;
        mover.all_to_device(memory.range())?;
        moved.open()?;
        check.wait()?;
        mover.expect_in_system(memory.range())?;
        memory.check(1)
    })?;
    moved.wait()?;
    mover.expect_on_device(memory.range())?;
    ensure!(
        mover.resident()? == memory.length() as u64,
        "{} pages that two processes share take {} bytes",
        memory.pages(),
        mover.resident()?
    );
    memory.check(1)?;
    check.open()?;
    child.wait()
}

/// After one side has written, the two have different pages at the same addresses.
fn move_after_cow() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(PAGES)?)?;
    let (written, moved) = (Gate::new()?, Gate::new()?);
    let child = fork(|| {
        memory.fill_pages(100..200, 2);
        Mover::open()?.all_to_device(memory.range())?;
        written.open()?;
        moved.wait()?;
        memory.check_pages(0..100, 1)?;
        memory.check_pages(100..200, 2)?;
        memory.check_pages(200..PAGES, 1)
    })?;
    written.wait()?;
    mover.all_to_device(memory.range())?;
    let expected = ((PAGES + 100) * PAGE) as u64;
    ensure!(
        mover.resident()? == expected,
        "{} bytes are resident, and {expected} different ones are there",
        mover.resident()?
    );
    moved.open()?;
    memory.check(1)?;
    child.wait()?;
    memory.check(1)
}

fn many_children() -> Result<()> {
    const CHILDREN: u64 = 6;
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(PAGES)?)?;
    let mut children = Vec::new();
    for number in 0..CHILDREN {
        children.push(fork(|| {
            let own = number as usize * 50..number as usize * 50 + 50;
            memory.fill_pages(own.clone(), 10 + number);
            Mover::open()?.to_device(memory.range())?;
            memory.check_pages(0..own.start, 1)?;
            memory.check_pages(own.clone(), 10 + number)?;
            memory.check_pages(own.end..PAGES, 1)
        })?);
    }
    mover.to_device(memory.range())?;
    for child in children {
        child.wait()?;
    }
    memory.check(1)
}

/// A program that is started shares the memory with its parent until it is executed, and then has its own.
fn vfork_and_exec() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?)?;
    for _ in 0..5 {
        let status = Command::new("/proc/self/exe")
            .args([crate::cases::child::ARGUMENT, "no/such-case"])
            .stderr(std::process::Stdio::null())
            .status()
            .context("cannot start a program")?;
        ensure!(
            status.code() == Some(crate::cases::child::FAILED.into()),
            "the program ended with {status}"
        );
    }
    mover.expect_on_device(memory.range())?;
    memory.check(1)
}

/// Forks again and again while another process moves the memory there and back.
fn while_moving() -> Result<()> {
    use std::sync::atomic::Ordering;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let stop = Memory::shared(1)?;
    let own =
        Process::from_id(std::process::id().cast_signed()).context("a process id is positive")?;
    let range = memory.range();
    let mover = fork(|| {
        let mover = Mover::open()?.of(own);
        let mut pages = 0;
        while stop.word(0).load(Ordering::Relaxed) == 0 {
            for direction in [Direction::ToDevice, Direction::ToSystem] {
                pages += mover
                    .call(range.clone(), direction, MigrateFlags::default())?
                    .pages;
            }
        }
        ensure!(pages > 0, "nothing moved");
        Ok(())
    })?;
    let forks = (|| {
        for seed in 2..25 {
            let child = fork(|| {
                memory.check(1)?;
                memory.fill_pages(0..PAGES / 2, seed);
                memory.check_pages(0..PAGES / 2, seed)?;
                memory.check_pages(PAGES / 2..PAGES, 1)
            })?;
            memory.check(1)?;
            child.wait()?;
        }
        memory.check(1)
    })();
    stop.word(0).store(1, Ordering::Relaxed);
    forks?;
    mover.wait()
}
