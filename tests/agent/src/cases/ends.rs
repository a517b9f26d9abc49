// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ends/*`: what no later case would survive. They run only when they are asked for by their whole name, each in a guest
//! of its own.

use super::support::gate::Gate;
use super::support::host;
use super::support::nodes;
use super::support::prelude::*;
use hmm_control::{Question, WOKE_WELL};
use hmm_uapi::PrefetchState;
use hmm_uapi::client::{Error, MigrateRequest, PrefetchRequest};
use rustix::process::Signal;
use rustix::system::{RebootCommand, reboot};
use std::fs;
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::new("ends/power-off-while-moving", power_off),
    Case::new("ends/reboot-while-moving", reboot_while_moving),
    Case::new("ends/unplug-while-moving", unplug),
    Case::new("ends/sleep-while-moving", sleep),
];

const PAGES: usize = 600;
/// How long a device may take to be gone. Its memory is migrated back first.
const LIMIT: Duration = Duration::from_secs(60);
/// How often the system sleeps.
const NIGHTS: u32 = 3;

/// A process that moves its memory back and forth until the device is gone, and checks it.
fn mover(seed: u64, ready: &Gate) -> Result<Child> {
    fork(|| {
        let mover = Mover::open()?;
        let mut memory = Memory::single(PAGES)?;
        memory.fill(seed);
        mover.all_to_device(memory.range())?;
        ready.open()?;
        loop {
            for direction in [Direction::ToDevice, Direction::ToSystem] {
                // A system that goes to sleep ends calls early, as a signal does.
                let moved = mover.device.migrate_all(&MigrateRequest {
                    process: Process::Caller,
                    range: memory.range(),
                    direction,
                    flags: MigrateFlags::default(),
                });
                match moved {
                    Ok(_) => {}
                    Err(Error::Gone { .. }) => return memory.check(seed),
                    Err(error) => return Err(error.into()),
                }
            }
            memory.check(seed)?;
        }
    })
}

fn movers() -> Result<Vec<Child>> {
    let ready = Gate::new()?;
    let children = (1..=3)
        .map(|seed| mover(seed, &ready))
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..children.len() {
        ready.wait()?;
    }
    Ok(children)
}

/// The system goes down under processes whose memory is on its way.
fn power_off() -> Result<()> {
    let _children = movers()?;
    host::ask(&Question::PowerOffAhead)?;
    reboot(RebootCommand::PowerOff).context("cannot power off")
}

/// The system starts again under processes whose memory is on its way, or on the device.
fn reboot_while_moving() -> Result<()> {
    let _children = movers()?;
    host::ask(&Question::RebootAhead)?;
    reboot(RebootCommand::Restart).context("cannot reboot")
}

/// The first device is pulled while processes move.
fn unplug() -> Result<()> {
    let children = movers()?;
    let mut memory = Memory::huge(2)?;
    memory.fill(9);
    let memory = memory;
    Mover::open()?.all_to_device(memory.range())?;
    host::ask(&Question::Unplug { index: 0 })?;
    let end = Instant::now() + LIMIT;
    while nodes::exist() {
        ensure!(Instant::now() < end, "the device is still there");
        memory.check(9)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    children.into_iter().try_for_each(Child::wait)?;
    memory.check(9)
}

/// The system sleeps, as far as its devices go, while processes move, and wakes. The ports that results go through do
/// not survive that, so the kernel's log has the result, and the guest powers itself off.
fn sleep() -> Result<()> {
    host::ask(&Question::PowerOffAhead)?;
    let line = match sleep_and_check() {
        Ok(()) => WOKE_WELL.to_owned(),
        Err(error) => format!("hmm-agent: {error:#}"),
    };
    fs::write("/dev/kmsg", line).context("cannot write to the kernel's log")?;
    reboot(RebootCommand::PowerOff).context("cannot power off")
}

fn sleep_and_check() -> Result<()> {
    let write = |file: &str, text: &str| {
        fs::write(file, text).with_context(|| format!("cannot write {text} to {file}"))
    };
    // Devices are suspended and resumed at once; there is nothing here to wake the processors.
    write("/sys/power/pm_test", "devices")?;
    write("/sys/module/suspend/parameters/pm_test_delay", "1")?;
    let children = movers()?;
    let mover = Mover::open()?;
    let mut resident = Memory::single(PAGES)?;
    resident.fill(7);
    // What is prefetched is on its way when the system falls asleep.
    let mut memory = Memory::single(32 << 8)?;
    memory.fill(8);
    for night in 1..=NIGHTS {
        mover.all_to_device(resident.range())?;
        let id = mover.device.prefetch(&PrefetchRequest {
            process: Process::Caller,
            range: memory.range(),
            direction: Some(Direction::ToDevice),
            flags: MigrateFlags::default(),
        })?;
        write("/sys/power/state", "freeze").with_context(|| format!("night {night}"))?;
        let report = mover.device.wait(id, Some(LIMIT))?;
        ensure!(
            report.state == PrefetchState::Done && report.next == memory.range().end,
            "night {night}: {report:?}"
        );
        resident.check(7)?;
        memory.check(8)?;
    }
    let slept = fs::read_to_string("/sys/power/suspend_stats/success")?;
    ensure!(
        slept.trim() == NIGHTS.to_string(),
        "the kernel says that it slept {slept:?} times"
    );
    // Those that found a wrong byte, or met an error, have ended by themselves.
    for child in children {
        child.signal(Signal::KILL)?;
        child.wait_for_signal(Signal::KILL)?;
    }
    Ok(())
}
