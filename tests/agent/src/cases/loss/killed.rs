// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices whose process is killed, beside what the matrix has.

use super::trial::{Trial, counter, wait_for_more};
use crate::cases::support::depth;
use crate::cases::support::jobs::{Jobs, crc32c, expect_done};
use crate::cases::support::kernel;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use crate::cases::support::random::Random;
use hmm_control::Comeback;
use hmm_uapi::client::JobRequest;
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::new("restart/kills-at-random-moments-anon-4k", kills)
        .within(400)
        .kills(),
    Case::new("restart/other-identity-anon-4k", other_identity),
];

const PAGES: usize = 500;
/// How often the process is killed for every change; a deeper run does more.
const KILLS: u32 = 4;
/// The latest moment of a kill after the device came back.
const LATEST: u64 = 1_000;

/// Fills memory, moves it there and back, and looks at every byte, until it is told to stop.
fn moves(stop: &AtomicBool, rounds: &AtomicU64, first: u64) -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    let mut seed = first;
    while !stop.load(Ordering::Relaxed) {
        memory.fill(seed);
        for direction in [Direction::ToDevice, Direction::ToSystem] {
            // Pages that a device left uncopied are counted, and stay where they were.
            mover.call(memory.range(), direction, MigrateFlags::default())?;
            if seed.is_multiple_of(2) {
                memory.check(seed)?;
            }
        }
        memory.check(seed)?;
        seed += 1;
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Has the device look at memory, until it is told to stop. A job ends with the right result, or with an error.
fn jobs(stop: &AtomicBool, rounds: &AtomicU64) -> Result<()> {
    let jobs = Jobs::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(9);
    let expected = crc32c(memory.bytes());
    while !stop.load(Ordering::Relaxed) {
        let Ok(id) = jobs.begin(&JobRequest::crc32c(memory.range(), 0)) else {
            continue;
        };
        if let Ok(report) = expect_done(jobs.wait(id)?) {
            ensure!(
                report.result == u64::from(expected),
                "a job found other bytes: {report:x?}"
            );
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    }
    memory.check(9)
}

fn kills() -> Result<()> {
    let kills = match depth::load()?.kills {
        Some(kills) => kills,
        None => depth::rounds(KILLS)?,
    };
    let trial = Trial::of_killed(hmm_control::Again::No)?;
    let (stop, moved, done) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut random = Random::new(15);
    let mut away = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let mut workers: Vec<_> = (0..3)
            .map(|worker| {
                let (stop, moved) = (&stop, &moved);
                scope.spawn(move || moves(stop, moved, 100 * worker + 1))
            })
            .collect();
        workers.push(scope.spawn(|| jobs(&stop, &done)));
        let result = (0..kills).try_for_each(|_| -> Result<()> {
            std::thread::sleep(Duration::from_millis(random.next() % LATEST));
            let (losses, begin) = (counter("losses")?, Instant::now());
            trial.kill(Comeback::Same)?;
            wait_for_more("losses", losses)?;
            trial.come_back()?;
            away.push(begin.elapsed());
            Ok(())
        });
        // Something is done with the device that came back last.
        let before = moved.load(Ordering::Relaxed);
        while result.is_ok() && moved.load(Ordering::Relaxed) < before + 3 {
            if workers.iter().any(|worker| worker.is_finished()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            match worker.join() {
                Ok(worked) => worked?,
                Err(_) => bail!("a worker panicked"),
            }
        }
        result
    })?;
    away.sort();
    let quantile = |per_cent: usize| away.get((away.len() - 1) * per_cent / 100);
    eprintln!(
        "{kills} kills, {} moves, {} jobs; from a kill to the return: p50 {:.1?}, p99 {:.1?}",
        moved.load(Ordering::Relaxed),
        done.load(Ordering::Relaxed),
        quantile(50),
        quantile(99)
    );
    ensure!(!kernel::has_complained()?, "the kernel has complained");
    trial.mover.wait_for_resident(0)
}

/// A device with other memory comes. It is another device, and does not serve what was on the first.
fn other_identity() -> Result<()> {
    let trial = Trial::of_killed_with_short_wait()?;
    let memory = trial.memory(PAGES, 1)?;
    let mut other = Memory::single(PAGES)?;
    other.fill(2);
    let devices = nodes::all().len();
    let losses = counter("losses")?;
    trial.kill(Comeback::Other)?;
    wait_for_more("losses", losses)?;
    fork(|| {
        memory.touch(3..4);
        Ok(())
    })?
    .wait_for_signal(Signal::BUS)?;
    drop(memory);
    other.check(2)?;
    // It may have the name of the first if that had gone before.
    let there = || {
        (0..=devices)
            .filter(|index| std::path::Path::new(&format!("/dev/hmm{index}")).exists())
            .count()
    };
    while there() < devices {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
