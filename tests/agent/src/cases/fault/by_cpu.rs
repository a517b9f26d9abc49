// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A read or write by the CPU migrates pages back.

use super::on_device;
use crate::cases::support::prelude::*;
use crate::cases::support::random::Random;
use std::sync::Barrier;
use std::sync::atomic::Ordering;

pub(super) const CASES: &[Case] = &[
    Case::new("fault/read-anon-4k", read),
    Case::new("fault/read-backwards-anon-4k", read_backwards),
    Case::new("fault/read-random-anon-4k", read_random),
    Case::new("fault/write-anon-4k", write),
    Case::new("fault/read-anon-thp", read_huge),
    Case::new("fault/write-anon-thp", write_huge),
    Case::new("fault/counted-anon-4k", counted),
    Case::new("fault/threads-same-page-anon-4k", threads_on_one_page),
    Case::new("fault/threads-many-pages-anon-4k", threads_on_many_pages),
];

fn read() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(700)?, 1)?;
    memory.check(1)?;
    mover.expect_in_system(memory.range())
}

fn read_backwards() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(700)?, 1)?;
    for page in (0..700).rev() {
        memory.check_pages(page..page + 1, 1)?;
    }
    mover.expect_in_system(memory.range())
}

fn read_random() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(700)?, 1)?;
    let mut random = Random::new(2);
    for _ in 0..300 {
        let page = random.below(700);
        memory.check_pages(page..page + 1, 1)?;
        let counts = mover
            .device
            .residency(Process::Caller, memory.part(page..page + 1))?;
        ensure!(
            counts.system_pages == 1,
            "page {page} was read and has {counts:?}"
        );
    }
    memory.check(1)
}

/// A write of a few bytes leaves the rest of the page and the neighbours as they were.
fn write() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(300)?, 1)?;
    let mut expected = memory.bytes().to_vec();
    mover.all_to_device(memory.range())?;
    for page in (0..300).step_by(7) {
        let offset = page * PAGE + (page * 13) % PAGE;
        memory.bytes_mut()[offset] ^= 0xff;
        expected[offset] ^= 0xff;
    }
    ensure!(
        memory.bytes() == expected,
        "a write changed more or less than its byte"
    );
    mover.all_to_device(memory.range())?;
    ensure!(
        memory.bytes() == expected,
        "a written byte was lost on the way"
    );
    Ok(())
}

fn read_huge() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::huge(3)?, 1)?;
    memory.check_pages(800..801, 1)?;
    memory.check(1)?;
    mover.expect_in_system(memory.range())
}

fn write_huge() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::huge(3)?, 1)?;
    for page in [0, 511, 512, 1023, 1200] {
        memory.fill_pages(page..page + 1, 2);
    }
    memory.check_pages(1..511, 1)?;
    memory.check_pages(513..1023, 1)?;
    for page in [0, 511, 512, 1023, 1200] {
        memory.check_pages(page..page + 1, 2)?;
    }
    Ok(())
}

fn counted() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(512)?, 1)?;
    let before = mover.device.stats()?;
    memory.check(1)?;
    let after = mover.device.stats()?;
    let faults = after.cpu_faults - before.cpu_faults;
    ensure!((1..=512).contains(&faults), "{faults} faults for 512 pages");
    ensure!(
        after.cpu_faults_failed == before.cpu_faults_failed,
        "a fault failed"
    );
    for (name, bytes) in [
        (
            "bytes_by_fault",
            after.bytes_by_fault - before.bytes_by_fault,
        ),
        (
            "bytes_to_system",
            after.bytes_to_system - before.bytes_to_system,
        ),
        (
            "resident_bytes",
            before.resident_bytes - after.resident_bytes,
        ),
    ] {
        ensure!(
            bytes == memory.length() as u64,
            "{name} changed by {bytes}, and {} bytes came home",
            memory.length()
        );
    }
    Ok(())
}

fn threads_on_one_page() -> Result<()> {
    const THREADS: usize = 8;
    const ROUNDS: u32 = 150;
    let mover = Mover::open()?;
    let mut memory = Memory::single(1)?;
    memory.fill(0);
    let first = memory.word(0).load(Ordering::Relaxed);
    let barrier = Barrier::new(THREADS + 1);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    barrier.wait();
                    memory.word(0).fetch_add(1, Ordering::Relaxed);
                    barrier.wait();
                }
            });
        }
        let mut result = Ok(());
        for _ in 0..ROUNDS {
            if result.is_ok() {
                result = mover.to_device(memory.range()).map(drop);
            }
            // The threads take part in every round, also after a failure.
            barrier.wait();
            barrier.wait();
        }
        result
    })?;
    let counted = memory.word(0).load(Ordering::Relaxed).wrapping_sub(first);
    let expected = THREADS as u32 * ROUNDS;
    ensure!(
        counted == expected,
        "{expected} additions, {counted} counted"
    );
    Ok(())
}

fn threads_on_many_pages() -> Result<()> {
    const THREADS: usize = 6;
    const PAGES: usize = 600;
    let mover = Mover::open()?;
    for round in 1..=4 {
        let memory = on_device(&mover, Memory::single(PAGES)?, round)?;
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let memory = &memory;
                    scope.spawn(move || {
                        let mut random = Random::new(thread as u64 + 1);
                        for _ in 0..PAGES {
                            let page = random.below(PAGES);
                            memory.check_pages(page..page + 1, round)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(result) => result,
                    Err(_) => bail!("a thread panicked"),
                })
                .collect()
        });
        results.into_iter().collect::<Result<()>>()?;
        memory.check(round)?;
    }
    Ok(())
}
