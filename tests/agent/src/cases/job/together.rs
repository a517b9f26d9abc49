// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs beside CPUs, beside other jobs, and beside moves of the same memory.

use crate::cases::support::depth;
use crate::cases::support::jobs::{Jobs, blocks, expect_done};
use crate::cases::support::prelude::*;
use hmm_uapi::JobState;
use hmm_uapi::PreferredSide;
use hmm_uapi::client::{Advice, JobRequest};
use rustix::mm::MprotectFlags;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("job/sixteen-under-churn-anon-4k", churn_single).within(300),
    Case::new("job/sixteen-under-churn-anon-thp", churn_huge).within(300),
    Case::new("job/counters-of-cpu-and-device-anon-4k", counters),
    Case::new("job/threads-and-jobs-on-one-page-anon-4k", one_page),
    Case::new("job/first-touches-of-many-jobs-anon-4k", first_touches),
    Case::new("job/storm-of-invalidations-anon-4k", storm_of_invalidations).within(300),
    Case::new("job/storm-of-faults-anon-4k", storm_of_faults).within(300),
];

/// How often the other thread has its turn at least.
const LEAST_TURNS: u64 = 3;

/// Does `work` so many times while another thread does `other` again and again, and goes on until that was done a few times,
/// and once more. Returns how often each was done.
fn beside(
    rounds: u32,
    mut work: impl FnMut() -> Result<()>,
    mut other: impl FnMut() -> Result<()> + Send,
) -> Result<(u32, u64)> {
    let (stop, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (stop, turns) = (&stop, &turns);
        let other = scope.spawn(move || -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                other()?;
                turns.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        let mut done = 0;
        let result = (|| {
            let mut is_last = false;
            while !is_last {
                is_last = done + 1 >= rounds
                    && (other.is_finished() || turns.load(Ordering::SeqCst) >= LEAST_TURNS);
                work()?;
                done += 1;
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        (other.join()).unwrap_or_else(|_| bail!("a thread panicked"))?;
        result.map(|()| (done, turns.load(Ordering::SeqCst)))
    })
}

/// Jobs begin together where none was before, and each wants the same page for itself.
fn first_touches() -> Result<()> {
    const PAGES: usize = 64;
    const JOBS: u64 = 8;
    let jobs = Jobs::open()?;
    let words = (PAGES * PAGE / 8) as u64;
    for round in 0..depth::rounds(40)? {
        let mut memory = Memory::single(PAGES)?;
        memory.bytes_mut().fill(0);
        let add = JobRequest::atomic_add(memory.range().start, words, 8, 1);
        let ids = (0..JOBS)
            .map(|_| Ok(jobs.begin(&add)?))
            .collect::<Result<Vec<_>>>()?;
        for id in ids {
            expect_done(jobs.wait(id)?)?;
        }
        for (index, word) in memory.bytes().chunks_exact(8).enumerate() {
            let word = u64::from_ne_bytes(word.try_into()?);
            ensure!(word == JOBS, "word {index} is {word} in round {round}");
        }
    }
    Ok(())
}

/// What each byte has before the churn. The kernel gives pages of zeros back when it splits a huge page.
const START: u8 = 1;

/// Sixteen jobs add to the words of the same range while it moves to the device and back. No addition is lost.
fn churn(memory: Memory) -> Result<()> {
    const JOBS: u32 = 16;
    let jobs = Jobs::open()?;
    let mover = Mover::open()?;
    let words = (memory.length() / 8) as u64;
    let quiet = quiet_faults(&jobs, &mover, &memory)?;
    let rounds = depth::rounds(6)?;
    let mut faults = 0;
    let (rounds, moves) = beside(
        rounds,
        || {
            let ids = (1..=JOBS)
                .map(|more| {
                    let more = u64::from(more);
                    let add = JobRequest::atomic_add(memory.range().start, words, 8, more);
                    Ok(jobs.begin(&add)?)
                })
                .collect::<Result<Vec<_>>>()?;
            for id in ids {
                let report = expect_done(jobs.wait(id)?)?;
                ensure!(report.amount == words, "{report:?}");
                faults += report.faults;
            }
            Ok(())
        },
        || {
            mover.to_device(memory.range())?;
            mover.to_system(memory.range())?;
            Ok(())
        },
    )?;
    ensure!(faults > 0, "{moves} moves, and the device had no fault");
    // Sixteen jobs or one, a quiet range takes as many faults as before.
    ensure!(
        quiet_faults(&jobs, &mover, &memory)? == quiet,
        "the churn changed how often the device faults"
    );
    // 1 + 2 + … + 16 in each round.
    let expected = u64::from_ne_bytes([START; 8]) + u64::from(rounds * JOBS * (JOBS + 1) / 2);
    for (index, word) in memory.bytes().chunks_exact(8).enumerate() {
        let found = u64::from_ne_bytes(word.try_into()?);
        ensure!(
            found == expected,
            "word {index} is {found}, and {expected} were added in {moves} moves"
        );
    }
    Ok(())
}

/// How often a job faults that adds nothing to each word of system memory, and of the same memory on the device. It is told by
/// the range alone.
fn quiet_faults(jobs: &Jobs, mover: &Mover, memory: &Memory) -> Result<(u64, u64)> {
    let words = (memory.length() / 8) as u64;
    let add = JobRequest::atomic_add(memory.range().start, words, 8, 0);
    mover.to_system(memory.range())?;
    let in_system = jobs.done(&add)?.faults;
    // What the device has for itself does not move.
    memory.touch(0..memory.pages());
    mover.all_to_device(memory.range())?;
    let on_device = jobs.done(&add)?.faults;
    let again = jobs.done(&add)?.faults;
    let (pages, blocks) = (memory.pages() as u64, blocks(&memory.range()));
    ensure!(
        (in_system, on_device, again) == (pages, blocks, 0),
        "{in_system} faults for {pages} pages, {on_device} for {blocks} blocks, {again} again"
    );
    Ok((in_system, on_device))
}

fn churn_single() -> Result<()> {
    let mut memory = Memory::single(1024)?;
    memory.bytes_mut().fill(START);
    churn(memory)
}

fn churn_huge() -> Result<()> {
    let mut memory = Memory::huge(2)?;
    memory.bytes_mut().fill(START);
    churn(memory)
}

/// A CPU and the device count in the same words of system memory at once, which the device can do only while they are
/// exclusively its own.
fn counters() -> Result<()> {
    const WORDS: usize = 16;
    let jobs = Jobs::open()?;
    let mut memory = Memory::single(4)?;
    memory.bytes_mut().fill(0);
    one_fault_by_turns(&jobs, &memory)?;
    memory.bytes_mut().fill(0);
    // A word in each of several lines, and in each page.
    let offset = |index: usize| index * memory.length() / WORDS;
    let mut by_cpu = 0;
    let rounds = depth::rounds(40)?;
    let (by_device, _) = beside(
        rounds,
        || {
            for index in 0..WORDS {
                let address = (memory.address() + offset(index)) as u64;
                jobs.done(&JobRequest::atomic_add(address, 1, 4, 1))?;
            }
            Ok(())
        },
        || {
            for _ in 0..100 {
                for index in 0..WORDS {
                    memory.word(offset(index)).fetch_add(1, Ordering::SeqCst);
                }
                by_cpu += 1;
            }
            std::thread::yield_now();
            Ok(())
        },
    )?;
    for index in 0..WORDS {
        let found = memory.word(offset(index)).load(Ordering::SeqCst);
        ensure!(
            found == by_device + by_cpu,
            "word {index} is {found}; the device counted {by_device} and the CPU {by_cpu}"
        );
    }
    Mover::open()?.expect_in_system(memory.range())
}

/// The page is the device's own from its first access to the next of a CPU.
fn one_fault_by_turns(jobs: &Jobs, memory: &Memory) -> Result<()> {
    let add = JobRequest::atomic_add(memory.range().start, 1, 4, 1);
    for turn in 0..10 {
        memory.word(0).fetch_add(1, Ordering::SeqCst);
        let faults = [jobs.done(&add)?.faults, jobs.done(&add)?.faults];
        ensure!(faults == [1, 0], "{faults:?} faults in turn {turn}");
    }
    let found = memory.word(0).load(Ordering::SeqCst);
    ensure!(found == 30, "{found} was counted in 10 turns of 3");
    Ok(())
}

/// Threads and jobs count in the words of one page, which also moves.
fn one_page() -> Result<()> {
    const THREADS: u32 = 3;
    const JOBS: usize = 8;
    let rounds = depth::rounds(30)?;
    let jobs = Jobs::open()?;
    let mover = Mover::open()?;
    let mut memory = Memory::single(1)?;
    memory.bytes_mut().fill(0);
    let words = PAGE / 4;
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        for word in 0..words {
                            memory.word(4 * word).fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        for _ in 0..rounds {
            let add = JobRequest::atomic_add(memory.range().start, words as u64, 4, 1);
            let ids = (0..JOBS)
                .map(|_| Ok(jobs.begin(&add)?))
                .collect::<Result<Vec<_>>>()?;
            mover.to_device(memory.range())?;
            for id in ids {
                expect_done(jobs.wait(id)?)?;
            }
        }
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        }
        Ok(())
    })?;
    let expected = rounds * (THREADS + JOBS as u32);
    for word in 0..words {
        let found = memory.word(4 * word).load(Ordering::SeqCst);
        ensure!(found == expected, "word {word} is {found}, not {expected}");
    }
    Ok(())
}

/// Jobs read memory whose page tables change all the time.
fn storm_of_invalidations() -> Result<()> {
    let jobs = Jobs::open()?;
    let mut memory = Memory::single(1024)?;
    memory.fill(1);
    let expected = jobs.done(&JobRequest::crc32c(memory.range(), 0))?.result;
    let rounds = depth::rounds(20)?;
    let mut faults = 0;
    let mut step = 0;
    let (_, storms) = beside(
        rounds,
        || {
            let crc = JobRequest::crc32c(memory.range(), 0);
            let ids = [jobs.begin(&crc)?, jobs.begin(&crc)?, jobs.begin(&crc)?];
            for id in ids {
                let report = expect_done(jobs.wait(id)?)?;
                ensure!(report.result == expected, "{report:x?}");
                faults += report.faults;
            }
            Ok(())
        },
        || {
            // Each takes pages away from the device: write protection, and its end.
            let first = step % 960;
            step += 7;
            memory.protect(first..first + 64, MprotectFlags::READ)?;
            memory.protect(
                first..first + 64,
                MprotectFlags::READ | MprotectFlags::WRITE,
            )
        },
    )?;
    ensure!(faults > 0, "{storms} changes, and the device had no fault");
    memory.check(1)
}

/// Many jobs fault at once, each on pages of its own, some of which move to the device on the way.
fn storm_of_faults() -> Result<()> {
    const JOBS: usize = 64;
    let jobs = Jobs::open()?;
    let rounds = depth::rounds(4)?;
    let pages_each = 16;
    let mut memory = Memory::single(JOBS * pages_each)?;
    for round in 0..rounds {
        memory.fill(u64::from(round));
        let half = memory.part(0..JOBS * pages_each / 2);
        jobs.device.advise(
            Process::Caller,
            half,
            Advice {
                side: Some(PreferredSide::Device),
                ..Advice::default()
            },
        )?;
        let mut ids = Vec::new();
        for job in 0..JOBS {
            let part = memory.part(job * pages_each..(job + 1) * pages_each);
            let fill = JobRequest::fill(part, job as u64 + 1);
            ids.push(jobs.begin(&fill)?);
        }
        let mut faults = 0;
        for id in ids {
            let report = expect_done(jobs.wait(id)?)?;
            ensure!(report.state == JobState::Done, "{report:?}");
            faults += report.faults;
        }
        ensure!(faults > 0, "the device had no fault");
        for job in 0..JOBS {
            let part = memory.page_bytes(job * pages_each..(job + 1) * pages_each);
            ensure!(
                part.chunks_exact(8)
                    .all(|word| word == (job as u64 + 1).to_le_bytes()),
                "the part of job {job}, in round {round}"
            );
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
