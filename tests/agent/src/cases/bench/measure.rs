// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One measurement.

use super::movers::Moving;
use super::pagemap::Pagemap;
use crate::cases::support::memory::{HUGE, Memory, PAGE};
use crate::cases::support::random::Random;
use anyhow::{Context, Result, ensure};
use hmm_control::bench::{Measure, Pages, Return, Sample, Side};
use std::hint::black_box;
use std::time::Instant;

/// Writes memory, moves it to the device, brings it back, and compares every byte.
pub(super) fn measure(what: Measure) -> Result<Sample> {
    let bytes = usize::try_from(what.bytes)?;
    ensure!(
        bytes > 0 && bytes.is_multiple_of(HUGE),
        "{bytes} bytes are no number of huge pages"
    );
    let mut memory = match what.pages {
        Pages::Thp => Memory::huge(bytes / HUGE)?,
        Pages::Single => Memory::single(bytes / PAGE)?,
    };
    let seed = 1 + u64::from(std::process::id());
    memory.fill(seed);
    let pagemap = Pagemap::open()?;
    let mover = Moving::open(what.side, bytes)?;
    let mut sample = Sample::default();

    let before = mover.counters()?;
    let started = Instant::now();
    mover.to_device(&memory)?;
    sample.to_device_ns = nanoseconds(started)?;
    let there = mover.counters()?;
    sample.read_back_ns = mover.read_back(&memory)?;
    ensure!(
        pagemap.is_elsewhere(memory.address())?,
        "the first page is still in system memory after it was moved"
    );

    match what.back {
        Return::Migrate => {
            let started = Instant::now();
            mover.to_system(&memory)?;
            sample.back_ns = nanoseconds(started)?;
        }
        Return::Read => {
            let started = Instant::now();
            memory.touch(0..memory.pages());
            sample.back_ns = nanoseconds(started)?;
        }
        Return::Touch { count } => {
            sample.touches_ns = touches(&memory, &pagemap, count, seed)?;
            mover.to_system(&memory)?;
        }
    }
    let back = mover.counters()?;
    sample.doorbells = [
        there.doorbells - before.doorbells,
        back.doorbells - there.doorbells,
    ];
    sample.cpu_faults = back.cpu_faults - there.cpu_faults;
    // A device that copies nothing has lost it.
    if what.side != Side::NoCopy {
        memory.check(seed)?;
    }
    Ok(sample)
}

/// Reads pages here and there that are still on the device, one after the other.
fn touches(memory: &Memory, pagemap: &Pagemap, count: usize, seed: u64) -> Result<Vec<u64>> {
    let mut random = Random::new(seed);
    let mut times = Vec::with_capacity(count);
    // Neighbours come home together, so that after a while there are pages enough, but not on the device.
    for _ in 0..8 * count {
        let page = memory.at(random.below(memory.pages()) * PAGE);
        if !pagemap.is_elsewhere(page.as_ptr().addr())? {
            continue;
        }
        let started = Instant::now();
        // SAFETY: The page is inside of the mapping, which is readable.
        black_box(unsafe { page.as_ptr().read_volatile() });
        times.push(nanoseconds(started)?);
        if times.len() == count {
            return Ok(times);
        }
    }
    anyhow::bail!(
        "found only {} of {count} pages on the device: too much comes home at once for this much memory",
        times.len()
    )
}

pub(super) fn nanoseconds(started: Instant) -> Result<u64> {
    u64::try_from(started.elapsed().as_nanos()).context("a time beyond all measure")
}
