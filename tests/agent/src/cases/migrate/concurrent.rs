// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Moves while others use or move the same memory.

use crate::cases::support::gate::Gate;
use crate::cases::support::inject::Faults;
use crate::cases::support::prelude::*;
use crate::cases::support::signals::{Calls, while_interrupted};
use hmm_uapi::client::MigrateRequest;
use rustix::mm::MprotectFlags;
use serde_json::json;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

pub(super) const CASES: &[Case] = &[
    Case::new("migrate/while-writing-anon-4k", while_writing),
    Case::new("migrate/two-movers-anon-4k", two_movers),
    Case::new("migrate/batches-of-one-call-anon-4k", batches_of_one_call),
    Case::new("migrate/while-unmapping-anon-4k", while_unmapping),
    Case::new("migrate/hole-filled-meanwhile-anon-4k", hole_filled),
    Case::new("migrate/interrupted-by-signal-anon-4k", interrupted),
    Case::new("migrate/interrupted-at-first-anon-4k", interrupted_at_first),
];

/// A reply counts the batches of its own call, and not those of others that are under way.
fn batches_of_one_call() -> Result<()> {
    const CALLS: usize = 100;
    const OTHERS: usize = 1500;
    let mover = Mover::open()?;
    let (mut one, mut others) = (Memory::single(1)?, Memory::single(OTHERS)?);
    one.fill(1);
    others.fill(2);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let (others, stop) = (&others, &stop);
        let other = scope.spawn(move || -> Result<()> {
            let mover = Mover::open()?;
            while !stop.load(Ordering::Relaxed) {
                mover.to_device(others.range())?;
                mover.to_system(others.range())?;
            }
            Ok(())
        });
        let calls = (0..CALLS).try_for_each(|index| {
            let direction = match index % 2 {
                0 => Direction::ToDevice,
                _ => Direction::ToSystem,
            };
            let moved = mover.call(one.range(), direction, MigrateFlags::default())?;
            // A page that another holder kept has no batch, or one for each try.
            ensure!(
                moved.pages == 0 || (moved.batches == 1 && moved.doorbells <= 1),
                "one page took {moved:?}"
            );
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        let other = other.join().unwrap_or_else(|_| bail!("a thread panicked"));
        calls.and(other)
    })?;
    one.check(1)?;
    others.check(2)
}

/// Threads count in words of the memory while it moves; no count is lost.
fn while_writing() -> Result<()> {
    const THREADS: usize = 3;
    const PAGES: usize = 64;
    let mover = Mover::open()?;
    let memory = Memory::single(PAGES)?;
    let stop = AtomicBool::new(false);
    let counts: [AtomicU32; THREADS] = Default::default();
    std::thread::scope(|scope| -> Result<()> {
        for (thread, count) in counts.iter().enumerate() {
            let (memory, stop) = (&memory, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for page in 0..PAGES {
                        memory
                            .word(page * PAGE + thread * 4)
                            .fetch_add(1, Ordering::Relaxed);
                        memory
                            .word(page * PAGE + 2048)
                            .fetch_add(1, Ordering::Relaxed);
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Before that there is nothing to move.
        while (counts.iter()).any(|count| count.load(Ordering::Relaxed) == 0) {
            std::thread::yield_now();
        }
        let moves = (|| -> Result<usize> {
            let mut pages = 0;
            for round in 0..60 {
                let direction = if round % 4 == 3 {
                    Direction::ToSystem
                } else {
                    Direction::ToDevice
                };
                pages += mover
                    .call(memory.range(), direction, MigrateFlags::default())?
                    .pages;
            }
            Ok(pages)
        })();
        stop.store(true, Ordering::Relaxed);
        ensure!(moves? > 0, "nothing moved while the threads wrote");
        Ok(())
    })?;
    let mut sum = 0_u32;
    for (thread, count) in counts.iter().enumerate() {
        let count = count.load(Ordering::Relaxed);
        sum = sum.wrapping_add(count);
        for page in 0..PAGES {
            let found = memory
                .word(page * PAGE + thread * 4)
                .load(Ordering::Relaxed);
            ensure!(
                found == count,
                "page {page}, thread {thread}: counted {count}, found {found}"
            );
        }
    }
    for page in 0..PAGES {
        let found = memory.word(page * PAGE + 2048).load(Ordering::Relaxed);
        ensure!(
            found == sum,
            "page {page}: counted {sum} together, found {found}"
        );
    }
    Ok(())
}

/// Two processes move the memory of a third, in turn and against each other.
fn two_movers() -> Result<()> {
    let mut memory = Memory::single(1500)?;
    let range = memory.range();
    let (ready, done) = (Gate::new()?, Gate::new()?);
    let owner = fork(|| {
        memory.fill(5);
        ready.open()?;
        ready.open()?;
        done.wait()?;
        done.wait()?;
        memory.check(5)
    })?;
    let mut movers = Vec::new();
    for offset in 0..2 {
        let (range, process) = (range.clone(), owner.process()?);
        let (ready, done) = (&ready, &done);
        movers.push(fork(move || {
            ready.wait()?;
            let mover = Mover::open()?.of(process);
            let mut pages = 0;
            for round in 0..20 {
                let direction = if (round + offset) % 2 == 0 {
                    Direction::ToDevice
                } else {
                    Direction::ToSystem
                };
                pages += mover
                    .call(range.clone(), direction, MigrateFlags::default())?
                    .pages;
            }
            ensure!(pages > 0, "nothing moved");
            done.open()
        })?);
    }
    for mover in movers {
        mover.wait()?;
    }
    owner.wait()
}

/// Half of the memory goes away, again and again, while another process moves it; the other half is intact.
fn while_unmapping() -> Result<()> {
    const PAGES: usize = 400;
    let mut memory = Memory::single(PAGES)?;
    memory.fill_pages(0..PAGES / 2, 1);
    let range = memory.range();
    let (go, stop) = (Gate::new()?, Memory::shared(1)?);
    let child = fork(|| {
        go.wait()?;
        for _ in 0..40 {
            memory.fill_pages(PAGES / 2..PAGES, 2);
            memory.check_pages(PAGES / 2..PAGES, 2)?;
            memory.advise(PAGES / 2..PAGES, rustix::mm::Advice::LinuxDontNeed)?;
            memory.check_zero(PAGES / 2..PAGES)?;
        }
        stop.word(0).store(1, Ordering::Relaxed);
        memory.check_pages(0..PAGES / 2, 1)
    })?;
    let mover = Mover::open()?.of(child.process()?);
    go.open()?;
    while stop.word(0).load(Ordering::Relaxed) == 0 {
        match mover.call(range.clone(), Direction::ToDevice, MigrateFlags::default()) {
            Ok(_) => {}
            // The child may have failed and gone; its own report says more.
            Err(error) => {
                child.wait()?;
                return Err(error);
            }
        }
    }
    child.wait()
}

/// A thread writes to a hole that a device page is on its way to. Its page stays, and the device's goes.
fn hole_filled() -> Result<()> {
    const PAGES: usize = 64;
    const WRITTEN: usize = 40;
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill_pages(0..1, 1);
    faults.add(
        json!({ "action": "delay", "queue": "bulk", "microseconds": 1_000_000, "count": 1 }),
    )?;
    let before = mover.device.stats()?.batches;
    let is_there = Barrier::new(2);
    let moved = std::thread::scope(|scope| -> Result<_> {
        let written = scope.spawn(|| -> Result<()> {
            is_there.wait();
            while mover.device.stats()?.batches == before {
                std::thread::yield_now();
            }
            memory.word(WRITTEN * PAGE).store(7, Ordering::Relaxed);
            Ok(())
        });
        // A thread that begins maps memory, which would wait for the batch.
        is_there.wait();
        let moved = mover.call(memory.range(), Direction::ToDevice, MigrateFlags::POPULATE)?;
        written
            .join()
            .map_err(|_| anyhow::anyhow!("the writer has panicked"))??;
        Ok(moved)
    })?;
    moved.expect(PAGES - 1, &[(SkipReason::LostRace, 1)])?;
    mover.expect_in_system(memory.part(WRITTEN..WRITTEN + 1))?;
    let word = memory.word(WRITTEN * PAGE).load(Ordering::Relaxed);
    ensure!(word == 7, "what was written has become {word}");
    memory.check_pages(0..1, 1)?;
    memory.check_zero(1..WRITTEN)?;
    memory.check_zero(WRITTEN + 1..PAGES)
}

/// A signal ends the call early; what it says about its way so far is right, and the rest can be asked for.
fn interrupted() -> Result<()> {
    let mover = Mover::open()?;
    // Pieces that are handed out come to their end, so there must be more of them than workers.
    let mut memory = Memory::single(32 << 10)?;
    memory.fill(1);
    let interruptions = while_interrupted(Calls::End, || {
        let mut interruptions = 0;
        for round in 0..40 {
            let direction = if round % 2 == 0 {
                Direction::ToDevice
            } else {
                Direction::ToSystem
            };
            interruptions += move_with_signals(&mover, &memory, direction)?;
            if interruptions > 3 {
                break;
            }
        }
        Ok(interruptions)
    })?;
    ensure!(interruptions > 0, "no call was interrupted");
    memory.check(1)
}

/// The first call for a process takes the locks of all its mappings, which the kernel gives up when a signal comes. Such a
/// call has begun nothing, and says so.
fn interrupted_at_first() -> Result<()> {
    // So many that it takes long.
    const MAPPINGS: usize = 4_000;
    const CHILDREN: usize = 40;
    let others = Memory::single(2 * MAPPINGS)?;
    for mapping in 0..MAPPINGS {
        others.protect(2 * mapping..2 * mapping + 1, MprotectFlags::READ)?;
    }
    let mut memory = Memory::single(16)?;
    memory.fill(1);
    let begun_nothing = Memory::shared(1)?;
    for _ in 0..CHILDREN {
        fork(|| {
            let mover = Mover::open()?;
            let first = MigrateRequest {
                process: Process::Caller,
                range: memory.range(),
                direction: Direction::ToDevice,
                flags: MigrateFlags::default(),
            };
            let report = while_interrupted(Calls::End, || Ok(mover.device.migrate(&first)?))?;
            let counted = report.pages_moved + report.skipped.total();
            if report.interrupted {
                ensure!(
                    report.next == first.range.start && counted == 0,
                    "{report:?}"
                );
                begun_nothing.word(0).fetch_add(1, Ordering::Relaxed);
            }
            move_with_signals(&mover, &memory, Direction::ToDevice)?;
            memory.check(1)
        })?
        .wait()?;
        if begun_nothing.word(0).load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
    }
    bail!("no first call was interrupted in {CHILDREN} processes")
}

/// Moves everything in as many calls as it takes; the interruptions.
fn move_with_signals(mover: &Mover, memory: &Memory, direction: Direction) -> Result<usize> {
    let whole = memory.range();
    let mut start = whole.start;
    let mut interruptions = 0;
    while start < whole.end {
        let report = mover.device.migrate(&MigrateRequest {
            process: Process::Caller,
            range: start..whole.end,
            direction,
            flags: MigrateFlags::default(),
        })?;
        ensure!(
            (start..=whole.end).contains(&report.next) && report.next % PAGE as u64 == 0,
            "{start:#x}-{:#x} ended at {:#x}",
            whole.end,
            report.next
        );
        ensure!(
            report.interrupted || report.next == whole.end,
            "the call ended early without a signal"
        );
        let pages = (report.next - start) / PAGE as u64;
        let counted = report.pages_moved + report.skipped.total();
        ensure!(
            pages == counted,
            "{pages} pages on the way, {counted} counted"
        );
        interruptions += usize::from(report.interrupted);
        start = report.next;
    }
    Ok(interruptions)
}
