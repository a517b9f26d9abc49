// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `power/*`: the system sleeps while memory is on the device.

use super::support::prelude::*;
use std::fs;
use std::path::Path;

pub(super) const CASES: &[Case] = &[
    Case::new("power/suspend-anon-4k", || suspend(Memory::single(600)?)).within(60),
    Case::new("power/suspend-anon-thp", || suspend(Memory::huge(2)?)).within(60),
    Case::new(
        "power/suspend-while-faulting-anon-4k",
        suspend_while_faulting,
    )
    .within(60),
];

const FOLDER: &str = "/sys/power";
/// How long the system sleeps in a test of it, seconds.
const DELAY: &str = "/sys/module/suspend/parameters/pm_test_delay";

/// Puts the system to sleep, down to its devices, from where it wakes by itself.
fn sleep() -> Result<()> {
    let folder = Path::new(FOLDER);
    if !folder.join("pm_test").exists() {
        return Err(skip("the kernel cannot test its sleep"));
    }
    fs::write(DELAY, "1").context("cannot shorten the sleep")?;
    fs::write(folder.join("pm_test"), "devices").context("cannot choose how deep to sleep")?;
    let slept = fs::write(folder.join("state"), "freeze");
    fs::write(folder.join("pm_test"), "none").context("cannot undo the test of sleep")?;
    slept.context("the system does not sleep")
}

fn suspend(mut memory: Memory) -> Result<()> {
    let mover = Mover::open()?;
    for seed in 1..=3 {
        memory.fill(seed);
        mover.all_to_device(memory.range())?;
        sleep()?;
        memory.check(seed)?;
        mover.all_to_device(memory.range())?;
        memory.check(seed)?;
    }
    Ok(())
}

/// Programs wait for their pages when the system goes to sleep.
fn suspend_while_faulting() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(600)?;
    memory.fill(1);
    let memory = memory;
    let mut children = Vec::new();
    for _ in 0..3 {
        children.push(fork(|| {
            let mover = Mover::open()?;
            for _ in 0..20 {
                mover.to_device(memory.range())?;
                memory.check(1)?;
            }
            Ok(())
        })?);
    }
    sleep()?;
    children.into_iter().try_for_each(Child::wait)?;
    mover.all_to_device(memory.range())?;
    memory.check(1)
}
