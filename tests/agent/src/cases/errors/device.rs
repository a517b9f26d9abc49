// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Copies that the device refuses: the page stays where it was, intact, and is counted.

use crate::cases::support::inject::Faults;
use crate::cases::support::prelude::*;
use rustix::process::Signal;
use serde_json::json;

pub(super) const CASES: &[Case] = &[
    Case::new("errors/refused-entry-to-device-anon-4k", entry_to_device),
    Case::new(
        "errors/refused-entries-to-device-anon-4k",
        entries_to_device,
    ),
    Case::new("errors/refused-batch-to-device-anon-4k", batch_to_device),
    Case::new("errors/refused-entry-to-system-anon-4k", entry_to_system),
    Case::new("errors/refused-batch-to-system-anon-4k", batch_to_system),
    Case::new("errors/refused-once-fault-anon-4k", fault_refused_once),
    Case::new("errors/refused-always-fault-anon-4k", fault_refused_always),
    Case::new("errors/every-status-to-device-anon-4k", every_status),
    Case::new("errors/slow-device-anon-4k", slow),
];

const PAGES: usize = 600;

fn filled(seed: u64) -> Result<Memory> {
    let mut memory = Memory::single(PAGES)?;
    memory.fill(seed);
    Ok(memory)
}

fn entry_to_device() -> Result<()> {
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let memory = filled(1)?;
    let before = mover.device.stats()?;
    faults.add(json!({ "action": "fail", "on": "entry", "op": "to_device", "nth": 37, "status": "internal" }))?;
    let moved = mover.call(memory.range(), Direction::ToDevice, MigrateFlags::default())?;
    moved.expect(PAGES - 1, &[(SkipReason::CopyFailed, 1)])?;
    ensure!(
        faults.fired()? == 1,
        "the fault fired {} times",
        faults.fired()?
    );
    let map = mover.map(memory.range())?;
    let left: Vec<usize> = (0..PAGES)
        .filter(|&page| map[page] != hmm_uapi::PageState::Device)
        .collect();
    ensure!(left.len() == 1, "the pages {left:?} are not on the device");
    ensure!(
        map[left[0]] == hmm_uapi::PageState::System,
        "page {} is {:?}",
        left[0],
        map[left[0]]
    );
    memory.check_pages(left[0]..left[0] + 1, 1)?;
    let after = mover.device.stats()?;
    ensure!(
        after.copy_errors - before.copy_errors == 1,
        "{} copy errors counted",
        after.copy_errors - before.copy_errors
    );
    memory.check(1)?;
    // The page is none the worse for it.
    mover.to_device(memory.range())?.expect(PAGES, none())?;
    memory.check(1)
}

fn entries_to_device() -> Result<()> {
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let mut memory = filled(1)?;
    faults.add(json!({ "action": "fail", "on": "entry", "op": "to_device", "every": 7, "status": "internal" }))?;
    let failed = PAGES / 7;
    let moved = mover.call(memory.range(), Direction::ToDevice, MigrateFlags::default())?;
    moved.expect(PAGES - failed, &[(SkipReason::CopyFailed, failed)])?;
    mover.expect_residency(memory.range(), failed, PAGES - failed)?;
    memory.check(1)?;
    faults.clear()?;
    memory.fill(2);
    mover.to_device(memory.range())?.expect(PAGES, none())?;
    memory.check(2)
}

fn batch_to_device() -> Result<()> {
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let memory = filled(1)?;
    faults.add(json!({ "action": "fail", "on": "batch", "op": "to_device", "status": "busy" }))?;
    let moved = mover.call(memory.range(), Direction::ToDevice, MigrateFlags::default())?;
    moved.expect(0, &[(SkipReason::CopyFailed, PAGES)])?;
    mover.expect_in_system(memory.range())?;
    ensure!(mover.resident()? == 0, "device memory is still in use");
    memory.check(1)?;
    faults.clear()?;
    mover.to_device(memory.range())?.expect(PAGES, none())?;
    memory.check(1)
}

fn entry_to_system() -> Result<()> {
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let memory = filled(1)?;
    mover.all_to_device(memory.range())?;
    faults.add(json!({ "action": "fail", "on": "entry", "op": "to_system", "nth": 100, "status": "poison" }))?;
    let moved = mover.call(memory.range(), Direction::ToSystem, MigrateFlags::default())?;
    moved.expect(PAGES - 1, &[(SkipReason::CopyFailed, 1)])?;
    mover.expect_residency(memory.range(), PAGES - 1, 1)?;
    memory.check(1)
}

fn batch_to_system() -> Result<()> {
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let memory = filled(1)?;
    mover.all_to_device(memory.range())?;
    faults.add(json!({ "action": "fail", "on": "batch", "op": "to_system", "queue": "bulk", "status": "busy" }))?;
    let moved = mover.call(memory.range(), Direction::ToSystem, MigrateFlags::default())?;
    moved.expect(0, &[(SkipReason::CopyFailed, PAGES)])?;
    mover.expect_on_device(memory.range())?;
    // The CPU's faults take another queue.
    memory.check(1)
}

/// A fault whose copy is refused once is tried again, and the process does not notice.
fn fault_refused_once() -> Result<()> {
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let memory = filled(1)?;
    mover.all_to_device(memory.range())?;
    faults.add(json!({ "action": "fail", "on": "batch", "op": "to_system", "queue": "urgent", "every": 3, "status": "busy" }))?;
    memory.check(1)?;
    ensure!(faults.fired()? > 0, "no fault of a CPU was refused");
    mover.expect_in_system(memory.range())
}

/// A fault that is never served ends in SIGBUS, and what is on the device stays there for better times.
fn fault_refused_always() -> Result<()> {
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let memory = filled(1)?;
    mover.all_to_device(memory.range())?;
    let before = mover.device.stats()?;
    faults.add(json!({ "action": "fail", "on": "batch", "op": "to_system", "queue": "urgent", "status": "busy" }))?;
    let child = fork(|| {
        memory.touch(0..1);
        Ok(())
    })?;
    child.wait_for_signal(Signal::BUS)?;
    let after = mover.device.stats()?;
    ensure!(
        after.cpu_faults_failed > before.cpu_faults_failed,
        "the fault is not counted as failed"
    );
    mover.expect_on_device(memory.range())?;
    faults.clear()?;
    memory.check(1)
}

fn every_status() -> Result<()> {
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let memory = filled(1)?;
    let errors = [
        "bad-op",
        "bad-flags",
        "reserved-nonzero",
        "bad-length",
        "bad-count",
        "bad-device-range",
        "overlap",
        "bad-guest-address",
        "stale-generation",
        "no-session",
        "poison",
        "busy",
        "cancelled",
        "internal",
    ];
    for status in errors {
        faults.clear()?;
        faults.add(json!({ "action": "fail", "on": "entry", "op": "to_device", "nth": 5, "status": status }))?;
        let moved = mover.call(memory.range(), Direction::ToDevice, MigrateFlags::default())?;
        moved
            .expect(PAGES - 1, &[(SkipReason::CopyFailed, 1)])
            .with_context(|| status.to_owned())?;
        memory.check(1).with_context(|| status.to_owned())?;
    }
    Ok(())
}

/// A device that takes its time is waited for.
fn slow() -> Result<()> {
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let memory = filled(1)?;
    let before = mover.device.stats()?;
    faults.add(json!({ "action": "delay", "on": "batch", "microseconds": 200_000, "count": 8 }))?;
    mover.to_device(memory.range())?.expect(PAGES, none())?;
    memory.check_pages(0..40, 1)?;
    mover.to_system(memory.range())?;
    memory.check(1)?;
    let after = mover.device.stats()?;
    ensure!(faults.fired()? > 0, "nothing was delayed");
    ensure!(
        after.timeouts == before.timeouts,
        "a slow batch was given up"
    );
    Ok(())
}
