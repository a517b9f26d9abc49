// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `unload/*`: the driver goes while pages are on the device; all of them come home first.

mod steps;

use crate::cases::support::driver;
use crate::cases::support::gate::Gate;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use hmm_uapi::client::{Device, Error};
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

/// All cases of the group.
pub(super) fn cases() -> impl Iterator<Item = &'static Case> {
    CASES.iter().chain(steps::CASES)
}

const CASES: &[Case] = &[
    Case::new("unload/module-anon-4k", module),
    Case::new("unload/module-anon-thp", module_huge),
    Case::new("unload/module-repeated-anon-4k", module_repeated),
    Case::new("unload/module-node-open", module_in_use),
    Case::new(
        "unload/module-shared-pages-anon-4k",
        module_with_shared_pages,
    ),
    Case::new("unload/module-while-exiting-anon-4k", module_while_exiting),
    Case::new("unload/unbind-anon-4k", unbind),
    Case::new(
        "unload/unbind-while-faulting-anon-4k",
        unbind_while_faulting,
    ),
    Case::new("unload/unbind-while-moving-anon-4k", unbind_while_moving),
];

const PAGES: usize = 700;

/// A child that has memory on the device and no node open; it checks its memory when the gate opens.
fn holder(mut memory: Memory, seed: u64, ready: &Gate, check: &Gate) -> Result<Child> {
    fork(move || {
        memory.fill(seed);
        Mover::open()?.all_to_device(memory.range())?;
        ready.open()?;
        check.wait()?;
        memory.check(seed)?;
        memory.fill(seed + 100);
        memory.check(seed + 100)
    })
}

fn unload_with_holders(memory: impl Fn() -> Result<Memory>, holders: u64) -> Result<()> {
    let (ready, check) = (Gate::new()?, Gate::new()?);
    let mut children = Vec::new();
    for seed in 0..holders {
        children.push(holder(memory()?, seed, &ready, &check)?);
    }
    for _ in 0..holders {
        ready.wait()?;
    }
    ensure!(Mover::open()?.resident()? > 0, "nothing is on the device");
    driver::unload().context("cannot remove the module")?;
    ensure!(!nodes::exist(), "the module is gone and its node is there");
    for _ in 0..holders {
        check.open()?;
    }
    let results: Vec<Result<()>> = children.into_iter().map(Child::wait).collect();
    driver::load()?;
    results.into_iter().collect()
}

fn module() -> Result<()> {
    unload_with_holders(|| Memory::single(PAGES), 4)
}

fn module_huge() -> Result<()> {
    unload_with_holders(|| Memory::huge(2), 2)
}

fn module_repeated() -> Result<()> {
    let mut memory = Memory::single(PAGES)?;
    for seed in 1..=5 {
        memory.fill(seed);
        Mover::open()?.all_to_device(memory.range())?;
        driver::unload().context("cannot remove the module")?;
        memory.check(seed)?;
        driver::load()?;
        let mover = Mover::open()?;
        mover.expect_in_system(memory.range())?;
        mover.all_to_device(memory.range())?;
        memory.check(seed)?;
    }
    Ok(())
}

/// As long as a process has the node open, the module stays, and works.
fn module_in_use() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    let refused = driver::unload();
    ensure!(
        refused == Err(Errno::AGAIN),
        "a module in use was to be removed: {refused:?}"
    );
    mover.expect_on_device(memory.range())?;
    memory.check(1)?;
    mover.all_to_device(memory.range())?;
    drop(mover);
    driver::unload().context("cannot remove the module after its node was closed")?;
    memory.check(1)?;
    driver::load()
}

fn module_with_shared_pages() -> Result<()> {
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    Mover::open()?.all_to_device(memory.range())?;
    let gone = Gate::new()?;
    let mut children = Vec::new();
    for seed in 2..5 {
        children.push(fork(|| {
            gone.wait()?;
            memory.check(1)?;
            memory.fill(seed);
            memory.check(seed)
        })?);
    }
    let unloaded = driver::unload();
    for _ in 2..5 {
        gone.open()?;
    }
    let results: Vec<Result<()>> = children.into_iter().map(Child::wait).collect();
    unloaded.context("cannot remove the module")?;
    driver::load()?;
    results.into_iter().collect::<Result<()>>()?;
    memory.check(1)
}

/// Processes end while their pages are migrated back.
fn module_while_exiting() -> Result<()> {
    use rustix::process::Signal;
    for _ in 0..5 {
        let (ready, check) = (Gate::new()?, Gate::new()?);
        let mut children = Vec::new();
        for seed in 0..6 {
            children.push(holder(Memory::single(PAGES)?, seed, &ready, &check)?);
        }
        for _ in 0..6 {
            ready.wait()?;
        }
        std::thread::scope(|scope| -> Result<()> {
            let killer = scope.spawn(|| -> Result<()> {
                for child in &children {
                    child.signal(Signal::KILL)?;
                    std::thread::yield_now();
                }
                Ok(())
            });
            let unloaded = driver::unload();
            match killer.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread panicked"),
            }
            unloaded.context("cannot remove the module")
        })?;
        for child in children {
            child.wait_for_signal(Signal::KILL)?;
        }
        driver::load()?;
    }
    Ok(())
}

/// The first bound device, unbound while something happens and bound again afterwards.
pub(super) fn with_unbound<T>(meanwhile: impl FnOnce() -> Result<T>) -> Result<T> {
    let nodes_before = nodes::all().len();
    let devices = driver::bound_devices()?;
    let device = devices.first().context("no device is bound")?;
    driver::unbind(device)?;
    let result = meanwhile();
    driver::bind(device, nodes_before)?;
    result
}

fn expect_gone<T: std::fmt::Debug>(what: &str, result: Result<T, Error>) -> Result<()> {
    ensure!(
        matches!(result, Err(Error::Gone { .. })),
        "{what} on a node whose device is gone: {result:?}"
    );
    Ok(())
}

/// An open node outlives its device and knows that it is gone.
fn unbind() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    let gone = || -> Result<()> {
        expect_gone("INFO", mover.device.info())?;
        expect_gone("STATS", mover.device.stats())?;
        expect_gone(
            "RESIDENCY",
            mover.device.residency(Process::Caller, memory.range()),
        )?;
        expect_gone(
            "MIGRATE",
            mover.device.migrate(&hmm_uapi::client::MigrateRequest {
                process: Process::Caller,
                range: memory.range(),
                direction: Direction::ToDevice,
                flags: MigrateFlags::default(),
            }),
        )
    };
    with_unbound(|| {
        gone()?;
        memory.check(1)
    })?;
    // It does not come back to life with the next binding.
    gone()?;
    let device = Device::open(nodes::first())?;
    let counts = device.residency(Process::Caller, memory.range())?;
    ensure!(
        counts.system_pages == PAGES as u64,
        "the pages are not home: {counts:?}"
    );
    let again = Mover::open()?;
    again.all_to_device(memory.range())?;
    memory.check(1)
}

fn unbind_while_faulting() -> Result<()> {
    for round in 0..4 {
        let mut memory = Memory::single(2 * PAGES)?;
        memory.fill(round);
        Mover::open()?.all_to_device(memory.range())?;
        std::thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..3)
                .map(|thread| {
                    let memory = &memory;
                    scope.spawn(move || -> Result<()> {
                        for index in 0..2 * PAGES {
                            let page = (index * 7 + thread * 400) % (2 * PAGES);
                            memory.check_pages(page..page + 1, round)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            let unbound = with_unbound(|| Ok(()));
            for thread in threads {
                match thread.join() {
                    Ok(result) => result?,
                    Err(_) => bail!("a thread panicked"),
                }
            }
            unbound
        })?;
        memory.check(round)?;
    }
    Ok(())
}

fn unbind_while_moving() -> Result<()> {
    for round in 0..4 {
        let mut memory = Memory::single(2 * PAGES)?;
        memory.fill(round);
        let unbound = AtomicBool::new(false);
        // Before the device can be gone.
        let mover = Mover::open()?;
        std::thread::scope(|scope| -> Result<()> {
            let moving = scope.spawn(|| -> Result<()> {
                loop {
                    for direction in [Direction::ToDevice, Direction::ToSystem] {
                        match mover.call(memory.range(), direction, MigrateFlags::default()) {
                            Ok(_) => {}
                            Err(error) => {
                                return match error.downcast_ref() {
                                    Some(Error::Gone { .. }) if unbound.load(Ordering::Acquire) => {
                                        Ok(())
                                    }
                                    _ => Err(error),
                                };
                            }
                        }
                    }
                }
            });
            std::thread::sleep(std::time::Duration::from_millis(30));
            unbound.store(true, Ordering::Release);
            let result = with_unbound(|| Ok(()));
            match moving.join() {
                Ok(moves) => moves?,
                Err(_) => bail!("the mover panicked"),
            }
            result
        })
        .with_context(|| format!("round {round}"))?;
        memory.check(round)?;
    }
    Ok(())
}
