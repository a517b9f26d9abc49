// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two devices work on the same memory.

use crate::cases::support::depth;
use crate::cases::support::jobs::Jobs;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use hmm_uapi::client::JobRequest;
use std::sync::atomic::Ordering;

pub(super) const CASES: &[Case] = &[
    Case::new("job/two-devices-and-a-cpu-count-anon-4k", count_together).within(300),
    Case::new("job/two-devices-take-turns-anon-4k", || {
        take_turns(Memory::single(1024)?)
    }),
    Case::new("job/two-devices-take-turns-anon-thp", || {
        take_turns(Memory::huge(2)?)
    }),
    Case::new("job/two-devices-at-once-anon-4k", || {
        at_once(Memory::single(1024)?)
    })
    .within(300),
    Case::new("job/two-devices-at-once-anon-thp", || {
        at_once(Memory::huge(2)?)
    })
    .within(300),
];

/// Both devices, each with a file of its own.
fn both() -> Result<[Jobs; 2]> {
    Ok([Jobs::on(&nodes::first())?, Jobs::on(&nodes::second()?)?])
}

/// Checks that each word is the one expected.
fn check_words(memory: &Memory, expected: impl Fn(usize) -> u64) -> Result<()> {
    for (index, word) in memory.bytes().chunks_exact(8).enumerate() {
        let (found, expected) = (u64::from_ne_bytes(word.try_into()?), expected(index));
        ensure!(
            found == expected,
            "word {index} is {found}, expected {expected}"
        );
    }
    Ok(())
}

/// Each of three has the words of system memory for itself while it adds to them. No addition is lost.
fn count_together() -> Result<()> {
    const PAGES: usize = 4;
    let devices = both()?;
    let rounds = depth::rounds(30)?;
    let mut memory = Memory::single(PAGES)?;
    memory.bytes_mut().fill(0);
    let words = (memory.length() / 8) as u64;
    std::thread::scope(|scope| {
        let memory = &memory;
        let adders: Vec<_> = (devices.iter())
            .map(|jobs| {
                scope.spawn(move || -> Result<()> {
                    let add = JobRequest::atomic_add(memory.range().start, words, 8, 1);
                    for _ in 0..rounds {
                        jobs.done(&add)?;
                    }
                    Ok(())
                })
            })
            .collect();
        for _ in 0..rounds {
            for word in 0..memory.length() / 8 {
                // The low half; it does not carry over.
                memory.word(word * 8).fetch_add(1, Ordering::SeqCst);
            }
        }
        for adder in adders {
            (adder.join()).unwrap_or_else(|_| bail!("a thread panicked"))?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    check_words(&memory, |_| 3 * u64::from(rounds))
}

/// The memory goes from one device to the other and back by their page faults alone, and each sees what the other wrote.
fn take_turns(mut memory: Memory) -> Result<()> {
    let devices = both()?;
    memory.bytes_mut().fill(0);
    for jobs in &devices {
        jobs.move_at_touch(memory.range())?;
    }
    let words = (memory.length() / 8) as u64;
    let rounds = depth::rounds(8)?;
    let mut sums = Vec::new();
    for _ in 0..rounds {
        for jobs in &devices {
            jobs.done(&JobRequest::atomic_add(memory.range().start, words, 8, 1))?;
        }
        // Both read the same, wherever it is.
        for jobs in &devices {
            sums.push(jobs.done(&JobRequest::crc32c(memory.range(), 0))?.result);
        }
    }
    for pair in sums.chunks_exact(2) {
        ensure!(pair[0] == pair[1], "the devices read {pair:x?}");
    }
    let moved = Mover::on(&nodes::second()?)?.device.stats()?;
    ensure!(
        moved.bytes_to_device >= memory.length() as u64,
        "the second device got {} bytes",
        moved.bytes_to_device
    );
    check_words(&memory, |_| 2 * u64::from(rounds))
}

/// Both work at once, each on every second page, and the blocks that these pages are in go to and fro.
fn at_once(mut memory: Memory) -> Result<()> {
    let devices = both()?;
    memory.bytes_mut().fill(0);
    for jobs in &devices {
        jobs.move_at_touch(memory.range())?;
    }
    let rounds = depth::rounds(3)?;
    let memory = &memory;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (devices.iter().enumerate())
            .map(|(number, jobs)| {
                scope.spawn(move || -> Result<()> {
                    for round in 0..rounds {
                        for page in (number..memory.pages()).step_by(2) {
                            let start = memory.part(page..page + 1).start;
                            let words = (PAGE / 8) as u64;
                            let add = JobRequest::atomic_add(start, words, 8, 1 + number as u64);
                            (jobs.done(&add))
                                .with_context(|| format!("page {page}, round {round}"))?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        for worker in workers {
            (worker.join()).unwrap_or_else(|_| bail!("a thread panicked"))?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    check_words(memory, |index| {
        let number = (index * 8 / PAGE % 2) as u64;
        (1 + number) * u64::from(rounds)
    })
}
