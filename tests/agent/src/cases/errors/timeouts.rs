// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Answers of the device that do not come, or make no sense. No wait is for ever and no byte is lost.

use crate::cases::support::depth;
use crate::cases::support::driver::Reloaded;
use crate::cases::support::inject::Faults;
use crate::cases::support::kernel;
use crate::cases::support::prelude::*;
use serde_json::{Value, json};

pub(super) const CASES: &[Case] = &[
    Case::new("errors/lost-completion-to-device-anon-4k", lost_to_device),
    Case::new("errors/lost-completion-to-system-anon-4k", lost_to_system),
    Case::new("errors/lost-completion-fault-anon-4k", lost_fault),
    Case::new(
        "errors/lost-completions-of-several-anon-4k",
        lost_of_several,
    )
    .within(300),
    Case::new("errors/late-completion-anon-4k", late),
    Case::new("errors/stalled-queue-anon-4k", stalled),
    Case::new("errors/wrong-length-anon-4k", wrong_length),
    Case::new("errors/wrong-cookie-anon-4k", wrong_cookie),
    Case::new("errors/duplicate-completion-anon-4k", duplicate),
];

const PAGES: usize = HUGE / PAGE;

/// What the device did wrong, and what the driver counted.
struct Trial {
    mover: Mover,
    memory: Memory,
    faults: Faults,
    // Loads the driver anew when all else is closed.
    _driver: Reloaded,
}

impl Trial {
    /// A driver that loses patience after two seconds, and memory.
    fn new() -> Result<Self> {
        let driver = Reloaded::with("timeout_ms=2000")?;
        let faults = Faults::of_first_device()?;
        let mover = Mover::open()?;
        // The device answers in order, so an answer to a later batch would stand for a lost one, too.
        let mut memory = Memory::table()?;
        memory.fill(1);
        Ok(Self {
            mover,
            memory,
            faults,
            _driver: driver,
        })
    }

    /// Moves all memory once while the device has a fault. Every page has moved or stayed, and which it is, is
    /// counted and true.
    fn call(&self, fault: Value, direction: Direction) -> Result<()> {
        self.faults.add(fault)?;
        let moved = self
            .mover
            .call(self.memory.range(), direction, MigrateFlags::default())?;
        let failed = moved.skipped(SkipReason::CopyFailed);
        ensure!(
            moved.pages + failed == PAGES,
            "pages were skipped for another reason: {moved:?}"
        );
        match direction {
            Direction::ToDevice => {
                self.mover
                    .expect_residency(self.memory.range(), failed, moved.pages)
            }
            Direction::ToSystem => {
                self.mover
                    .expect_residency(self.memory.range(), moved.pages, failed)
            }
        }
    }

    /// The device works as ever, and nothing was lost.
    fn afterwards(mut self) -> Result<()> {
        ensure!(self.faults.fired()? > 0, "the device did nothing wrong");
        self.faults.clear()?;
        self.memory.check(1)?;
        self.memory.fill(2);
        self.mover.all_to_device(self.memory.range())?;
        self.mover
            .to_system(self.memory.range())?
            .expect(PAGES, none())?;
        self.mover.all_to_device(self.memory.range())?;
        self.memory.check(2)
    }

    fn timeouts(&self) -> Result<u64> {
        Ok(self.mover.device.stats()?.timeouts)
    }
}

fn lost_to_device() -> Result<()> {
    let trial = Trial::new()?;
    trial.call(
        json!({ "action": "drop", "queue": "bulk", "count": 1 }),
        Direction::ToDevice,
    )?;
    ensure!(trial.timeouts()? >= 1, "a time-out was not counted");
    trial.afterwards()
}

fn lost_to_system() -> Result<()> {
    let trial = Trial::new()?;
    trial.mover.all_to_device(trial.memory.range())?;
    trial.call(
        json!({ "action": "drop", "queue": "bulk", "count": 1 }),
        Direction::ToSystem,
    )?;
    ensure!(trial.timeouts()? >= 1, "a time-out was not counted");
    trial.afterwards()
}

/// The CPU waits for a page whose copy is not answered; it gets it nevertheless, with every other page.
fn lost_fault() -> Result<()> {
    let trial = Trial::new()?;
    trial.mover.all_to_device(trial.memory.range())?;
    trial
        .faults
        .add(json!({ "action": "drop", "queue": "urgent", "count": 1 }))?;
    trial.memory.check(1)?;
    ensure!(trial.timeouts()? >= 1, "a time-out was not counted");
    trial.afterwards()
}

/// Several tasks that move parts of a range lose batches, so that each finds the device being restarted by another.
fn lost_of_several() -> Result<()> {
    let rounds = u64::from(depth::rounds(10)?);
    let _driver = Reloaded::with(&format!("timeout_ms={}", 300 * kernel::patience()))?;
    let faults = Faults::of_first_device()?;
    let mover = Mover::open()?;
    let mut memory = Memory::single(8 * HUGE / PAGE)?;
    let mut failed = 0;
    for round in 0..rounds {
        memory.fill(round);
        for direction in [Direction::ToDevice, Direction::ToSystem] {
            faults.add(json!({ "action": "drop", "queue": "bulk", "count": 2 }))?;
            // This checks that every page is accounted for.
            let moved = mover.call(memory.range(), direction, MigrateFlags::default())?;
            failed += moved.skipped(SkipReason::CopyFailed);
            faults.clear()?;
        }
        memory.check(round)?;
    }
    eprintln!("{failed} pages were not copied");
    mover.all_to_device(memory.range())?;
    memory.check(rounds - 1)
}

/// The answer comes after the driver has stopped to wait for it, when the pages are long used for something else.
fn late() -> Result<()> {
    let trial = Trial::new()?;
    trial.call(
        json!({ "action": "delay", "queue": "bulk", "microseconds": 4_000_000, "count": 1 }),
        Direction::ToDevice,
    )?;
    ensure!(trial.timeouts()? >= 1, "a time-out was not counted");
    trial.afterwards()
}

fn stalled() -> Result<()> {
    let trial = Trial::new()?;
    trial.mover.all_to_device(trial.memory.part(0..200))?;
    trial
        .faults
        .add(json!({ "action": "stall", "queue": "bulk" }))?;
    let moved = trial.mover.call(
        trial.memory.part(200..210),
        Direction::ToDevice,
        MigrateFlags::default(),
    )?;
    ensure!(
        moved.pages + moved.skipped(SkipReason::CopyFailed) == 10,
        "pages were skipped for another reason: {moved:?}"
    );
    ensure!(trial.timeouts()? >= 1, "a time-out was not counted");
    trial.faults.clear()?;
    trial.memory.check(1)?;
    trial.mover.all_to_device(trial.memory.range())?;
    trial.memory.check(1)
}

/// Checks that the driver noticed an answer that makes no sense, and did not believe it.
fn nonsense(fault: Value) -> Result<()> {
    let trial = Trial::new()?;
    let before = trial.mover.device.stats()?;
    trial.call(fault, Direction::ToDevice)?;
    let after = trial.mover.device.stats()?;
    ensure!(
        after.protocol_errors > before.protocol_errors,
        "the answer was not counted as nonsense"
    );
    trial.afterwards()
}

fn wrong_length() -> Result<()> {
    for length in [0, 1, u32::MAX] {
        nonsense(json!({ "action": "shorten", "length": length, "queue": "bulk", "count": 1 }))
            .with_context(|| format!("length {length}"))?;
    }
    Ok(())
}

fn wrong_cookie() -> Result<()> {
    nonsense(json!({ "action": "cookie", "queue": "bulk", "count": 1 }))
}

/// An answer that comes twice must not be taken for the answer to the next batch.
fn duplicate() -> Result<()> {
    let trial = Trial::new()?;
    trial.call(
        json!({ "action": "duplicate", "queue": "bulk", "count": 1 }),
        Direction::ToDevice,
    )?;
    trial.afterwards()
}
