// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A CPU fault on a huge page must not wait for a migration that waits for the lock of that page.

use super::on_device;
use crate::cases::support::gate::Gate;
use crate::cases::support::inject::Faults;
use crate::cases::support::prelude::*;
use hmm_uapi::client::Advice;
use rustix::mm::Advice as KernelAdvice;
use serde_json::json;
use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[Case::new(
    "fault/clear-against-collect-anon-thp",
    clear_against_collect,
)
.within(60)];

/// CPU faults that the driver serves at once.
const SERVED: usize = 16;
/// Where a migration collects pages, and where it sleeps if it needs the lock of one that it is about to split.
const COLLECT: [&str; 2] = ["migrate_vma_collect_pmd", "folio_wait_bit"];
/// How long the migration may take to get there. The driver gives the device 10 s.
const LIMIT: Duration = Duration::from_secs(8);
/// How often the stacks of the threads are read.
const INTERVAL: Duration = Duration::from_millis(1);

/// A fault holds the lock of a huge page and waits for its turn. Meanwhile single entries come to map the page, a migration
/// that collects these entries waits for the lock, and a third thread clears something else during the migration's
/// invalidation. The fault must go on when its turn comes.
fn clear_against_collect() -> Result<()> {
    let watcher = Watcher::new()?;
    let mover = Mover::open()?;
    let others = Memory::single(SERVED)?;
    let one_page = Advice {
        window: Some((PAGE as u32, PAGE as u32)),
        ..Advice::default()
    };
    (mover.device).advise(Process::Caller, others.range(), one_page)?;
    let others = on_device(&mover, others, 1)?;
    let huge = on_device(&mover, Memory::huge(1)?, 2)?;
    let mut cleared = Memory::single(1)?;
    cleared.fill(3);

    let turns = (0..SERVED + 2).map(|_| Gate::new());
    let turns: Vec<Gate> = turns.collect::<Result<_>>()?;
    let faults = Faults::of_first_device()?;
    faults.add(json!({ "action": "stall", "queue": "urgent" }))?;
    let before = mover.device.stats()?.cpu_faults;
    let (mover, others, huge, turns) = (&mover, &others, &huge, &turns);
    let run = &Barrier::new(turns.len() + 1);
    thread::scope(|scope| -> Result<()> {
        // All threads run before the first fault. Until it is served the process cannot map memory for one that begins, or
        // for anything else.
        let mut threads = Vec::with_capacity(turns.len());
        for (page, turn) in turns.iter().enumerate().take(SERVED) {
            threads.push(scope.spawn(move || {
                run.wait();
                turn.wait()?;
                others.check_pages(page..page + 1, 1)
            }));
        }
        threads.push(scope.spawn(move || {
            run.wait();
            turns[SERVED].wait()?;
            huge.check_pages(1..2, 2)
        }));
        threads.push(scope.spawn(move || {
            run.wait();
            turns[SERVED + 1].wait()?;
            (mover.call(huge.range(), Direction::ToSystem, MigrateFlags::default())).map(drop)
        }));

        run.wait();
        let begun = |faults: usize| -> Result<()> {
            while mover.device.stats()?.cpu_faults < before + faults as u64 {
                thread::sleep(INTERVAL);
            }
            Ok(())
        };
        turns[..SERVED].iter().try_for_each(Gate::open)?;
        begun(SERVED)?;
        turns[SERVED].open()?;
        begun(SERVED + 1)?;
        huge.advise(0..1, KernelAdvice::LinuxDontNeed)?;
        turns[SERVED + 1].open()?;
        watcher.wait_until_collecting()?;
        cleared.advise(0..1, KernelAdvice::LinuxDontNeed)?;
        watcher.end_stall()?;
        for thread in threads {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    })?;
    watcher.process.wait()?;
    cleared.check_zero(0..1)?;
    huge.check_zero(0..1)?;
    huge.check_pages(1..HUGE / PAGE, 2)?;
    mover.expect_in_system(huge.range())
}

/// A process that reads the stacks of the case's threads. The case itself cannot while its faults wait, since reading may
/// need memory.
struct Watcher {
    begin: Gate,
    is_collecting: Gate,
    end: Gate,
    process: Child,
}

impl Watcher {
    fn new() -> Result<Self> {
        let (begin, is_collecting, end) = (Gate::new()?, Gate::new()?, Gate::new()?);
        let case = std::process::id();
        let process = fork(|| {
            begin.wait()?;
            let limit = Instant::now() + LIMIT;
            while !is_any_collecting(case)? {
                if Instant::now() > limit {
                    Faults::of_first_device()?;
                    bail!("no migration waits for the page:\n{}", stacks(case)?);
                }
                thread::sleep(INTERVAL);
            }
            is_collecting.open()?;
            end.wait()?;
            Faults::of_first_device().map(drop)
        })?;
        Ok(Self {
            begin,
            is_collecting,
            end,
            process,
        })
    }

    fn wait_until_collecting(&self) -> Result<()> {
        self.begin.open()?;
        self.is_collecting.wait()
    }

    fn end_stall(&self) -> Result<()> {
        self.end.open()
    }
}

/// Whether a thread of the process sleeps where a migration collects pages.
fn is_any_collecting(process: u32) -> Result<bool> {
    Ok(stacks(process)?
        .split("\n\n")
        .any(|stack| COLLECT.iter().all(|function| stack.contains(function))))
}

/// The stacks of the threads of the process in the kernel, with empty lines between them.
fn stacks(process: u32) -> Result<String> {
    let mut stacks = String::new();
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        stacks += &fs::read_to_string(thread?.path().join("stack"))?;
        stacks.push('\n');
    }
    Ok(stacks)
}
