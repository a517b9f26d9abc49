// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Calls with boundary and random values by several threads, while the pages come and go.

use crate::cases::support::depth;
use crate::cases::support::mirror::{self, Mirror};
use crate::cases::support::nodes;
use crate::cases::support::pattern;
use crate::cases::support::prelude::*;
use crate::cases::support::random::{Random, some_seed};
use hmm_uapi::dmirror::{self, Command};
use rustix::io::Errno;
use rustix::mm::{Advice, MprotectFlags};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const CASES: &[Case] = &[Case::new("dmirror/random-calls", random_calls)
    .within(240)
    .rounds()];

/// Pages in the middle that are accessed.
const PAGES: usize = 1200;
/// Pages without access on both sides, so that a range that leaves the middle meets nothing of the process.
const GUARD: usize = 64;
/// Calls of each thread unless more are asked for.
const ROUNDS: u32 = 400;
/// Threads that make calls.
const CALLERS: u64 = 3;
/// The pattern that every page has, if it is not zero.
const SEED: u64 = 1;

fn random_calls() -> Result<()> {
    let _driver = mirror::driver()?;
    let load = depth::load()?;
    let seed = match load.fuzz_seed {
        Some(seed) => seed,
        None => some_seed()?,
    };
    eprintln!("HMM_FUZZ_SEED={seed} repeats the choices of each thread");
    let memory = Memory::anonymous(PAGES + 2 * GUARD)?;
    memory.protect(0..GUARD, MprotectFlags::empty())?;
    memory.protect(GUARD + PAGES..2 * GUARD + PAGES, MprotectFlags::empty())?;
    let mut files = vec![Mirror::open(0)?];
    let mut movers = vec![Mover::open()?];
    if let Ok(second) = nodes::second() {
        files.push(Mirror::open(1)?);
        movers.push(Mover::on(&second)?);
    }
    let rounds = match load.fuzz_rounds {
        Some(rounds) => rounds,
        None => depth::rounds(ROUNDS)?,
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut callers = Vec::new();
        for number in 0..CALLERS {
            let (files, memory) = (&files, &memory);
            let mut caller = Caller {
                random: Random::new(seed.wrapping_add(number)),
                file: &files[number as usize % files.len()],
                memory,
            };
            callers.push(scope.spawn(move || {
                (0..rounds).try_for_each(|round| {
                    caller
                        .call()
                        .with_context(|| format!("thread {number}, round {round}"))
                })
            }));
        }
        let churn = scope.spawn(|| {
            let mut random = Random::new(seed.wrapping_add(CALLERS));
            while !stop.load(Ordering::Relaxed) {
                change(&memory, &movers, &mut random)?;
            }
            Ok(())
        });
        let mut results: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        stop.store(true, Ordering::Relaxed);
        results.push(churn.join());
        for result in results {
            result.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    memory.protect(GUARD..GUARD + PAGES, MprotectFlags::READ)?;
    check(memory.page_bytes(GUARD..GUARD + PAGES), GUARD)
}

/// Pages of the middle.
fn some_pages(random: &mut Random) -> Range<usize> {
    let start = GUARD + random.below(PAGES);
    let most = [1, 8, 64, 600][random.below(4)];
    start..(start + 1 + random.below(most)).min(GUARD + PAGES)
}

/// Gives pages up, protects them, or moves them.
fn change(memory: &Memory, movers: &[Mover], random: &mut Random) -> Result<()> {
    let pages = some_pages(random);
    let mover = &movers[random.below(movers.len())];
    let range = memory.part(pages.clone());
    match random.below(6) {
        0 => memory.advise(pages, Advice::LinuxDontNeed),
        1 => memory.protect(pages, MprotectFlags::READ),
        2 => mover
            .call(range, Direction::ToDevice, MigrateFlags::POPULATE)
            .map(drop),
        3 => mover
            .call(range, Direction::ToSystem, MigrateFlags::default())
            .map(drop),
        _ => memory.protect(pages, MprotectFlags::READ | MprotectFlags::WRITE),
    }
}

/// Checks that each word is that of its place, or zero.
fn check(bytes: &[u8], first: usize) -> Result<()> {
    let mut expected = vec![0; bytes.len()];
    pattern::fill(&mut expected, first, SEED);
    for (index, (found, expected)) in bytes
        .chunks_exact(8)
        .zip(expected.chunks_exact(8))
        .enumerate()
    {
        ensure!(
            found == expected || found == [0; 8],
            "page {}, word {}: {found:x?}",
            first + index / (PAGE / 8),
            index % (PAGE / 8)
        );
    }
    Ok(())
}

struct Caller<'a> {
    random: Random,
    file: &'a Mirror,
    memory: &'a Memory,
}

impl Caller<'_> {
    fn call(&mut self) -> Result<()> {
        if self.random.below(4) == 0 {
            return self.wild();
        }
        // One range in eight leaves the middle.
        let mut pages = some_pages(&mut self.random);
        if self.random.below(8) == 0 {
            pages.end += self.random.below(GUARD);
        }
        let (first, range) = (pages.start, self.memory.part(pages.clone()));
        let mut read = None;
        let result = match self.random.below(9) {
            0 => self.file.read(range).map(|(bytes, _)| read = Some(bytes)),
            1 => (self.file.read_unlocked(range)).map(|(bytes, _)| read = Some(bytes)),
            2 => (self.file.to_device(range)).map(|(bytes, _)| read = Some(bytes)),
            3 => {
                let few = pages.start..pages.end.min(pages.start + 16);
                let range = self.memory.part(few);
                (self.file.exclusive(range)).map(|(bytes, _)| read = Some(bytes))
            }
            4 => self.file.to_system(range).map(drop),
            5 => self.file.snapshot(range).map(drop),
            6 => self.file.check_exclusive(range),
            7 => self.file.refuse_huge(),
            _ => {
                let mut bytes = vec![0; pages.len() * PAGE];
                pattern::fill(&mut bytes, first, SEED);
                self.file.write(range, &bytes).map(drop)
            }
        };
        expected(result)?;
        read.map_or(Ok(()), |bytes| check(&bytes, first))
    }

    /// Anything anywhere, with a buffer that the process does not have, so that nothing but the device's own view of
    /// the address space can be reached.
    fn wild(&mut self) -> Result<()> {
        let page = PAGE as u64;
        let mut word = |usual: u64| {
            let boundary = [
                0,
                1,
                page,
                1 << 47,
                (1 << 47) - page,
                1 << 56,
                1 << 57,
                u64::MAX,
            ];
            match self.random.below(4) {
                0 => boundary[self.random.below(boundary.len())],
                1 => self.random.next(),
                2 => self.random.next() & !(page - 1),
                _ => usual,
            }
        };
        let mut command = Command {
            address: word(self.memory.address() as u64),
            buffer: 8,
            pages: word(3),
            done: word(0),
            faults: word(0),
        };
        let number = self.random.below(12) as u8;
        match number {
            // Nothing of the process is moved or taken from its CPUs beyond what the case has; RELEASE takes no range.
            dmirror::MIGRATE_TO_DEVICE_NR
            | dmirror::MIGRATE_TO_SYSTEM_NR
            | dmirror::EXCLUSIVE_NR => command.address = self.memory.address() as u64,
            _ => {}
        }
        if command.pages > 1 << 20 && number == dmirror::CHECK_EXCLUSIVE_NR {
            command.pages = 1 << 20;
        }
        expected(self.file.raw(number, &mut command))
    }
}

fn expected(result: Result<(), Errno>) -> Result<()> {
    match result {
        Ok(())
        | Err(
            Errno::INVAL
            | Errno::FAULT
            | Errno::PERM
            | Errno::NOENT
            | Errno::BUSY
            | Errno::NOMEM
            | Errno::NOTTY,
        ) => Ok(()),
        Err(errno) => bail!("an error that no call has: {errno:?}"),
    }
}
