// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens to the process of a device beside its being killed: it hangs, or it makes room for a new version of itself.

use super::trial::{Trial, counter};
use crate::cases::support::prelude::*;
use hmm_control::{Again, Deed};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("restart/hung-while-moving-anon-4k", || replaced(Deed::Hang)),
    Case::new("restart/upgraded-while-moving-anon-4k", || {
        replaced(Deed::Terminate)
    }),
    Case::new("restart/paused-while-moving-anon-4k", paused),
    Case::new("restart/stalled-queue-while-moving-anon-4k", stalled),
];

const PAGES: usize = 500;
/// How often a case looks whether the device is back.
const LOOK: Duration = Duration::from_millis(5);

/// The process is replaced while memory moves and other memory is on the device. No byte is lost.
fn replaced(deed: Deed) -> Result<()> {
    let trial = Trial::of_killed(Again::No)?;
    let resident = trial.memory(PAGES, 1)?;
    beside_moves(|moves| {
        let returns = counter("returns")?;
        trial.suffer(deed)?;
        while counter("returns")? == returns {
            moves.more()?;
        }
        resident.check(1)
    })?;
    trial.mover.all_to_device(resident.range())?;
    resident.check(1)
}

/// The process answers, and one of its queues stalls. It is replaced before the driver gives the device up, and no byte is lost.
fn stalled() -> Result<()> {
    let trial = Trial::of_killed(Again::No)?;
    let resident = trial.memory(PAGES, 1)?;
    let timeouts = counter("timeouts")?;
    beside_moves(|moves| {
        let returns = counter("returns")?;
        (trial.faults).add(json!({ "action": "stall", "queue": "bulk" }))?;
        while counter("returns")? == returns {
            std::thread::sleep(LOOK);
        }
        moves.more()
    })?;
    resident.check(1)?;
    let now = counter("timeouts")?;
    ensure!(now == timeouts, "{} requests timed out", now - timeouts);
    trial.mover.all_to_device(resident.range())?;
    resident.check(1)
}

/// The process stops for a moment that is too short to count as hanging. It serves what was asked meanwhile, and nothing was lost.
fn paused() -> Result<()> {
    let trial = Trial::of_killed(Again::No)?;
    let resident = trial.memory(PAGES, 1)?;
    let (losses, timeouts) = (counter("losses")?, counter("timeouts")?);
    beside_moves(|moves| {
        trial.suffer(Deed::Pause)?;
        moves.more()?;
        moves.more()
    })?;
    resident.check(1)?;
    let now = (counter("losses")?, counter("timeouts")?);
    ensure!(now == (losses, timeouts), "{now:?}");
    Ok(())
}

/// Memory that moves to the device and back, again and again, and is compared.
struct Moves<'a> {
    rounds: &'a AtomicU64,
    has_ended: &'a dyn Fn() -> bool,
}

impl Moves<'_> {
    /// Waits until a round has ended.
    fn more(&self) -> Result<()> {
        let before = self.rounds.load(Ordering::Relaxed);
        while self.rounds.load(Ordering::Relaxed) == before {
            ensure!(!(self.has_ended)(), "the mover has ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Does `work` while memory moves.
fn beside_moves(work: impl FnOnce(&Moves<'_>) -> Result<()>) -> Result<()> {
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| -> Result<()> {
        let moving = scope.spawn(|| -> Result<()> {
            let mover = Mover::open()?;
            let mut memory = Memory::single(PAGES)?;
            memory.fill(2);
            while !stop.load(Ordering::Relaxed) {
                for direction in [Direction::ToDevice, Direction::ToSystem] {
                    mover.call(memory.range(), direction, MigrateFlags::default())?;
                }
                memory.check(2)?;
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let moves = Moves {
            rounds: &rounds,
            has_ended: &|| moving.is_finished(),
        };
        let worked = moves.more().and_then(|()| work(&moves));
        stop.store(true, Ordering::Relaxed);
        match moving.join() {
            Ok(moved) => moved.and(worked),
            Err(_) => bail!("the mover panicked"),
        }
    })
}
