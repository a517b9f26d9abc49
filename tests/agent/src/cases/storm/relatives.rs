// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `storm/relatives-*`: pages are evicted at addresses where a child of their process has huge pages, and moves.
//!
//! Who evicts a page asks all relatives for it with the lock of the reverse mapping held, which those who move need,
//! too. So it must not wait for them.

use super::{WithJobs, begin_jobs};
use crate::cases::support::depth;
use crate::cases::support::gate::Gate;
use crate::cases::support::inject::Faults;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use hmm_uapi::client::Advice;
use rustix::mm::Advice as KernelAdvice;
use rustix::process::Signal;
use serde_json::json;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// So many that each task that moves them has several.
const HUGE_PAGES: usize = 8;
const PAGES: usize = HUGE / PAGE;
/// What the child leaves on the device, as huge pages; the other process has single ones there.
const KEPT: Range<usize> = 0..(HUGE_PAGES - 1) * PAGES;
/// What the child moves.
const MOVED: Range<usize> = KEPT.end..HUGE_PAGES * PAGES;

pub(super) fn relatives_against_evict(rounds: u32, with_jobs: WithJobs) -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::huge(HUGE_PAGES)?;
    memory.fill(1);
    let memory = memory;
    let keep = |yes| {
        let advice = Advice {
            keep: Some(yes),
            ..Advice::default()
        };
        (mover.device).advise(Process::Caller, memory.part(KEPT), advice)
    };
    keep(true)?;
    mover.all_to_device(memory.range())?;
    let ready = Gate::new()?;
    let child = fork(|| move_there_and_back(&memory, &ready))?;
    ready.wait()?;

    // What the child has there is kept; what this process is going to have is not.
    memory.advise(KEPT, KernelAdvice::LinuxDontNeed)?;
    keep(false)?;
    let faults = Faults::of_first_device()?;
    faults
        .add(json!({ "action": "delay", "queue": "bulk", "on": "batch", "microseconds": 5_000 }))?;
    let before = mover.device.stats()?;
    let node = nodes::first();
    let stop = AtomicBool::new(false);
    let (mut rounds, most) = (0, depth::rounds(rounds)?);
    std::thread::scope(|scope| -> Result<()> {
        let evictor = scope.spawn(|| -> Result<()> {
            let mover = Mover::open()?;
            while !stop.load(Ordering::Relaxed) {
                mover.device.evict_bytes(HUGE as u64)?;
            }
            Ok(())
        });
        let result = (|| {
            while rounds < most && !evictor.is_finished() && !child.has_ended()? {
                for page in KEPT {
                    memory.word(page * PAGE).store(rounds, Ordering::Relaxed);
                }
                mover.to_device(memory.part(KEPT))?;
                let jobs = match with_jobs {
                    true => begin_jobs(&node, &memory)?,
                    false => None,
                };
                // For relatives that come and go the lock of the reverse mapping is taken for writing.
                for _ in 0..8 {
                    fork(|| Ok(()))?.wait()?;
                }
                drop(jobs);
                rounds += 1;
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        match evictor.join() {
            Ok(evicted) => evicted.context("evicting")?,
            Err(_) => bail!("the evictor panicked"),
        }
        result
    })?;
    faults.clear()?;
    ensure!(!child.has_ended()?, "the child has ended before its time");
    child.signal(Signal::KILL)?;
    child.wait_for_signal(Signal::KILL)?;
    let evicted = mover.device.stats()?.bytes_by_eviction - before.bytes_by_eviction;
    eprintln!("{rounds} rounds, {evicted} bytes evicted");
    ensure!(rounds > 0 && evicted > 0, "nothing happened");
    for page in KEPT {
        let found = memory.word(page * PAGE).load(Ordering::Relaxed);
        ensure!(found == rounds - 1, "page {page} has {found}");
    }
    memory.check_pages(MOVED, 1)
}

/// Moves what is not to stay on the device, until it is killed.
fn move_there_and_back(memory: &Memory, ready: &Gate) -> Result<()> {
    let mover = Mover::open()?;
    ready.open()?;
    loop {
        mover.to_device(memory.range())?;
        memory.check_pages(MOVED, 1)?;
    }
}
