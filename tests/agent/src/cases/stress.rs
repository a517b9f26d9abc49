// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `stress/*`: everything at random, and every byte compared with what it should be.

use super::support::modelled::Modelled;
use super::support::prelude::*;
use super::support::random::Random;
use hmm_uapi::client::Error;

pub(super) const CASES: &[Case] = &[
    Case::new("stress/one-process-anon", one_process).within(300),
    Case::new("stress/two-processes-anon", two_processes).within(300),
];

/// A mapping of any kind, of some MiB at most.
fn mapping(random: &mut Random) -> Result<Modelled> {
    let memory = if random.below(3) == 0 {
        Memory::huge(1 + random.below(2))?
    } else {
        Memory::single(1 + random.below(900))?
    };
    Ok(Modelled::new(memory))
}

/// Does so many things at random with memory of its own, and with that of another process if there is one.
fn storm(seed: u64, steps: usize, other: Option<(Process, std::ops::Range<u64>)>) -> Result<()> {
    let mut random = Random::new(seed);
    let mover = Mover::open()?;
    let mut mappings = Vec::new();
    for _ in 0..4 {
        mappings.push(mapping(&mut random)?);
    }
    for step in 0..steps {
        let index = random.below(mappings.len());
        one_step(&mut random, &mover, &mut mappings, index, other.as_ref())
            .with_context(|| format!("seed {seed}, step {step}"))?;
    }
    for (index, mapping) in mappings.iter().enumerate() {
        mapping
            .check_all()
            .with_context(|| format!("seed {seed}, mapping {index} at the end"))?;
    }
    Ok(())
}

fn one_step(
    random: &mut Random,
    mover: &Mover,
    mappings: &mut Vec<Modelled>,
    index: usize,
    other: Option<&(Process, std::ops::Range<u64>)>,
) -> Result<()> {
    let mapping = &mut mappings[index];
    match random.below(20) {
        0..6 => {
            let range = mapping.some_range(random);
            mover.call(range, Direction::ToDevice, MigrateFlags::default())?;
        }
        6 => {
            let range = mapping.some_range(random);
            mover.call(range, Direction::ToDevice, MigrateFlags::POPULATE)?;
        }
        7..10 => {
            let range = mapping.some_range(random);
            mover.call(range, Direction::ToSystem, MigrateFlags::default())?;
        }
        10..14 => {
            mapping.write(random);
        }
        14..16 => {
            let pages = mapping.some_pages(random);
            mapping.check(pages)?;
        }
        16 => {
            mapping.discard(random)?;
        }
        17 => {
            let mapping = mappings.swap_remove(index).remap(random)?;
            mappings.push(mapping);
        }
        18 => {
            let seed = random.next();
            let child = fork(|| {
                let mut random = Random::new(seed);
                mapping.write(&mut random);
                let range = mapping.some_range(&mut random);
                mover.call(range, Direction::ToDevice, MigrateFlags::default())?;
                mapping.check_all()
            })?;
            if random.below(2) == 0 {
                mapping.write(random);
            }
            child.wait()?;
        }
        _ => match other {
            Some((process, range)) => {
                let direction = if random.below(2) == 0 {
                    Direction::ToDevice
                } else {
                    Direction::ToSystem
                };
                let mover = Mover::open()?.of(*process);
                match mover.call(range.clone(), direction, MigrateFlags::default()) {
                    Ok(_) => {}
                    // It has done all its steps and has ended.
                    Err(error) if matches!(error.downcast_ref(), Some(Error::NoProcess { .. })) => {
                    }
                    Err(error) => return Err(error),
                }
            }
            None => mappings[index] = self::mapping(random)?,
        },
    }
    Ok(())
}

fn one_process() -> Result<()> {
    for seed in 1..=3 {
        storm(seed, 200, None)?;
    }
    Ok(())
}

/// Each moves the other's memory as well: a part of it that both know, and that holds what it held at the start.
fn two_processes() -> Result<()> {
    let mut common = Memory::single(800)?;
    common.fill(9);
    let own =
        Process::from_id(std::process::id().cast_signed()).context("a process id is positive")?;
    let range = common.range();
    let child = fork(|| {
        storm(11, 300, Some((own, range.clone())))?;
        common.check(9)
    })?;
    let storm = storm(12, 300, Some((child.process()?, range.clone())));
    child.wait()?;
    storm?;
    common.check(9)
}
