// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `storm/*`: processes are killed, or want their pages back, while the device evicts them. `control/exit-against-evict` is the
//! storm of killing against a driver that does not stand it.

mod relatives;

use super::support::gate::Gate;
use super::support::prelude::*;
use super::support::random::Random;
use super::support::storm::Storm;
use super::support::{depth, driver, kernel, nodes};
use anyhow::anyhow;
use hmm_uapi::client::{Device, Error, JobRequest, MigrateRequest};
use rustix::mm::Advice;
use rustix::process::Signal;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::new("storm/exit-against-unbind-anon-4k", || {
        exit_against_unbind(single, 100, NO_JOBS)
    })
    .within(300),
    Case::new("storm/exit-against-unbind-anon-thp", || {
        exit_against_unbind(huge, 100, NO_JOBS)
    })
    .within(300),
    Case::new("storm/exit-against-unbind-with-jobs-anon-4k", || {
        exit_against_unbind(single, 30, JOBS)
    })
    .within(300),
    Case::new("storm/exit-against-unbind-with-jobs-anon-thp", || {
        exit_against_unbind(huge, 30, JOBS)
    })
    .within(300),
    Case::new("storm/exit-against-pressure-anon-4k", || {
        exit_against_pressure(single, 10, NO_JOBS)
    })
    .within(300),
    Case::new("storm/exit-against-pressure-anon-thp", || {
        exit_against_pressure(huge, 10, NO_JOBS)
    })
    .within(300),
    Case::new("storm/exit-against-pressure-with-jobs-anon-4k", || {
        exit_against_pressure(single, 5, JOBS)
    })
    .within(300),
    Case::new("storm/exit-against-pressure-with-jobs-anon-thp", || {
        exit_against_pressure(huge, 5, JOBS)
    })
    .within(300),
    Case::new("storm/return-against-evict-anon-4k", || {
        return_against_evict(10, NO_JOBS)
    })
    .within(300),
    Case::new("storm/return-against-evict-with-jobs-anon-4k", || {
        return_against_evict(5, JOBS)
    })
    .within(300),
    Case::new("storm/clear-against-return-anon-thp", || {
        clear_against_return(10, NO_JOBS)
    })
    .within(300),
    Case::new("storm/clear-against-return-with-jobs-anon-thp", || {
        clear_against_return(5, JOBS)
    })
    .within(300),
    Case::new("storm/relatives-against-evict-anon-thp", || {
        relatives::relatives_against_evict(10, NO_JOBS)
    })
    .within(300),
    Case::new("storm/relatives-against-evict-with-jobs-anon-thp", || {
        relatives::relatives_against_evict(5, JOBS)
    })
    .within(300),
];

/// Whether jobs work on the memory all the time.
type WithJobs = bool;
const JOBS: WithJobs = true;
const NO_JOBS: WithJobs = false;

/// Begins jobs on memory, which end with what this returns: one reads it, and others write to it atomically what is there.
/// Without a device there are none.
fn begin_jobs(node: &Path, memory: &Memory) -> Result<Option<Device>> {
    let range = memory.range();
    let words = (range.end - range.start) / 8;
    let begun = Device::open(node).and_then(|device| {
        for request in [
            JobRequest::crc32c(range.clone(), 0),
            JobRequest::atomic_add(range.start, words, 8, 0),
            JobRequest::atomic_add(range.start, words, 8, 0),
        ] {
            // SAFETY: No job changes the bytes.
            unsafe { device.begin_job(&request) }?;
        }
        Ok(device)
    });
    match begun {
        Ok(device) => Ok(Some(device)),
        Err(Error::NoDevice { .. } | Error::Gone { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Moves memory as long as there is a device.
fn to_device(node: &Path, memory: &Memory) -> Result<()> {
    let moved = Device::open(node).and_then(|device| {
        device.migrate(&MigrateRequest {
            process: Process::Caller,
            range: memory.range(),
            direction: Direction::ToDevice,
            flags: MigrateFlags::default(),
        })
    });
    match moved {
        Ok(_) | Err(Error::NoDevice { .. } | Error::Gone { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Rages on the second device, which is small, so that it comes and goes quickly and is soon full.
fn rage(
    node: &Path,
    memory: fn() -> Result<Memory>,
    rounds: u32,
    with_jobs: WithJobs,
    evict: &(dyn Fn() -> Result<()> + Sync),
) -> Result<()> {
    let complained = kernel::has_complained()?;
    let storm = Storm {
        memory,
        to_device: &|memory| to_device(node, memory),
        begin_jobs: &|memory| match with_jobs {
            true => begin_jobs(node, memory),
            false => Ok(None),
        },
        evict,
        is_over: &|| Ok(false),
    };
    let killed = storm.rage(depth::rounds(rounds)?)?;
    eprintln!("{killed} processes were killed");
    ensure!(
        kernel::has_complained()? == complained,
        "the kernel has complained; its log says about what"
    );
    let mut memory = Memory::single(64)?;
    memory.fill(1);
    Mover::on(node)?.all_to_device(memory.range())?;
    memory.check(1)
}

/// Memory of a process that is going to be killed.
fn single() -> Result<Memory> {
    Memory::single(64)
}

/// The same of huge pages.
fn huge() -> Result<Memory> {
    Memory::huge(2)
}

fn exit_against_unbind(
    memory: fn() -> Result<Memory>,
    rounds: u32,
    with_jobs: WithJobs,
) -> Result<()> {
    let count = nodes::all().len();
    let device = (driver::bound_devices()?.into_iter().nth(1))
        .context("the driver is bound to one device only")?;
    rage(&nodes::second()?, memory, rounds, with_jobs, &|| {
        driver::unbind(&device)?;
        driver::bind(&device, count)
    })
}

/// Storms until something is evicted, at most.
const STORMS: u32 = 10;

/// More memory wants to be on the device than it has, so that it evicts what others have there.
fn exit_against_pressure(
    memory: fn() -> Result<Memory>,
    rounds: u32,
    with_jobs: WithJobs,
) -> Result<()> {
    let node = nodes::second()?;
    let capacity = Device::open(&node)?.info()?.memory_bytes as usize / PAGE;
    let mut filler = Memory::anonymous(capacity + capacity / 4)?;
    filler.fill(1);
    let filler = filler;
    let before = Device::open(&node)?.stats()?.bytes_by_eviction;
    // Nothing is evicted if the others' pages happen to be in system memory each time that room is needed.
    for _ in 0..STORMS {
        rage(&node, memory, rounds, with_jobs, &|| {
            to_device(&node, &filler)
        })?;
        if Device::open(&node)?.stats()?.bytes_by_eviction > before {
            return filler.check(1);
        }
    }
    bail!("nothing was evicted")
}

/// Threads fault on pages that another task evicts at the same time. Each page migrates back once.
fn return_against_evict(rounds: u32, with_jobs: WithJobs) -> Result<()> {
    const THREADS: u64 = 4;
    const PAGES: usize = 256;
    let rounds = depth::rounds(rounds)?;
    let node = nodes::second()?;
    let mover = Mover::on(&node)?;
    // What an earlier case had there.
    mover.wait_for_resident(0)?;
    let mut memories = Vec::new();
    for seed in 0..THREADS {
        let mut memory = Memory::single(PAGES)?;
        memory.fill(seed);
        memories.push(memory);
    }
    let before = mover.device.stats()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let evictor = scope.spawn(|| -> Result<()> {
            let device = Device::open(&node)?;
            while !stop.load(Ordering::Relaxed) {
                device.evict_bytes(1 << 40)?;
            }
            Ok(())
        });
        let mut threads = Vec::new();
        for (memory, seed) in memories.iter().zip(0..) {
            let node = &node;
            threads.push(scope.spawn(move || -> Result<()> {
                let mover = Mover::on(node)?;
                for _ in 0..rounds {
                    let jobs = match with_jobs {
                        true => begin_jobs(node, memory)?,
                        false => None,
                    };
                    mover.to_device(memory.range())?;
                    mover.call(memory.range(), Direction::ToSystem, MigrateFlags::default())?;
                    mover.to_device(memory.range())?;
                    memory.check_pages(0..PAGES, seed)?;
                    drop(jobs);
                }
                Ok(())
            }));
        }
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        stop.store(true, Ordering::Relaxed);
        for result in ended.into_iter().chain([evictor.join()]) {
            result.map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;
    for (memory, seed) in memories.iter().zip(0..) {
        mover.to_system(memory.range())?;
        memory.check(seed)?;
    }
    let after = mover.device.stats()?;
    let by = |count: fn(&hmm_uapi::Stats) -> u64| (count(&after) - count(&before)) / PAGE as u64;
    let (there, home, evicted, faulted) = (
        by(|stats| stats.bytes_to_device),
        by(|stats| stats.bytes_to_system),
        by(|stats| stats.bytes_by_eviction),
        by(|stats| stats.bytes_by_fault),
    );
    eprintln!(
        "{there} pages went to the device; {evicted} were evicted, {faulted} came for faults"
    );
    ensure!(
        evicted > 0 && faulted > 0 && home > evicted + faulted,
        "pages came home in one way only"
    );
    ensure!(
        there == home,
        "{there} pages went to the device, {home} came home"
    );
    Ok(())
}

/// Huge pages come home in every way there is, while threads and relatives clear entries of them, or are killed.
fn clear_against_return(rounds: u32, with_jobs: WithJobs) -> Result<()> {
    const PROCESSES: u64 = 3;
    let node = nodes::second()?;
    let mover = Mover::on(&node)?;
    let complained = kernel::has_complained()?;
    let before = mover.device.stats()?;
    let (mut lives, mut random) = (0, Random::new(7));
    for _ in 0..depth::rounds(rounds)? {
        let ready = Gate::new()?;
        let mut families = Vec::new();
        for seed in 0..PROCESSES {
            families.push(fork(|| family(&node, seed, &ready, with_jobs))?);
        }
        for _ in 0..PROCESSES {
            ready.wait()?;
        }
        let life = Duration::from_millis(random.below(400) as u64) * kernel::patience();
        let death = Instant::now() + life;
        while Instant::now() < death {
            let pages = 1 + random.below(8 * HUGE / PAGE);
            mover.device.evict_bytes((pages * PAGE) as u64)?;
        }
        for family in families {
            ensure!(!family.has_ended()?, "a process has ended before its time");
            family.signal(Signal::KILL)?;
            family.wait_for_signal(Signal::KILL)?;
            lives += 1;
        }
        ensure!(
            kernel::has_complained()? == complained,
            "the kernel has complained; its log says about what"
        );
    }
    let after = mover.device.stats()?;
    let by_fault = after.bytes_by_fault - before.bytes_by_fault;
    let by_eviction = after.bytes_by_eviction - before.bytes_by_eviction;
    eprintln!("{lives} processes; {by_fault} bytes came by faults, {by_eviction} by eviction");
    ensure!(
        by_fault > 0 && by_eviction > 0,
        "pages came home in one way only"
    );
    let mut memory = Memory::huge(2)?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    memory.check(1)
}

/// A process and its child, until they are killed: some huge pages are checked, others only cleared and written.
fn family(node: &Path, seed: u64, ready: &Gate, with_jobs: WithJobs) -> Result<()> {
    const PAGES: usize = 2 * HUGE / PAGE;
    let (mut kept, cleared) = (Memory::huge(2)?, Memory::huge(2)?);
    kept.fill(seed);
    let kept = kept;
    let write = |pages: Range<usize>| {
        for page in pages {
            cleared.word(page * PAGE).store(1, Ordering::Relaxed);
        }
    };
    write(0..PAGES);
    to_device(node, &kept)?;
    to_device(node, &cleared)?;
    // It shares all of it, and clears its own entries without anybody's leave.
    let parent = rustix::process::getpid();
    let child = fork(|| {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .context("cannot ask for a signal")?;
        // It may have been killed before.
        ensure!(
            rustix::process::getppid() == Some(parent),
            "the family is gone already"
        );
        let mut random = Random::new(seed);
        loop {
            kept.check(seed)?;
            let first = random.below(PAGES);
            cleared.advise(first..PAGES, Advice::LinuxDontNeed)?;
            write(0..first);
            to_device(node, &kept)?;
        }
    })?;
    ready.open()?;
    let again = |act: &(dyn Fn() -> Result<()> + Sync)| -> Result<()> {
        loop {
            ensure!(!child.has_ended()?, "the child has ended before its time");
            act()?;
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let mut threads = Vec::from([
            scope.spawn(|| again(&|| kept.check(seed))),
            scope.spawn(|| again(&|| to_device(node, &kept))),
            scope.spawn(|| {
                again(&|| {
                    write(0..PAGES);
                    to_device(node, &cleared)
                })
            }),
            scope.spawn(|| {
                let random = Mutex::new(Random::new(seed));
                again(&|| {
                    let mut random = random.lock().map_err(|_| anyhow!("a thread panicked"))?;
                    // Either whole huge pages or parts of them.
                    let (first, end) = match random.below(2) {
                        0 => (random.below(2) * PAGES / 2, PAGES),
                        _ => (random.below(PAGES), PAGES - random.below(PAGES / 2)),
                    };
                    cleared.advise(first..end.max(first + 1), Advice::LinuxDontNeed)
                })
            }),
        ]);
        if with_jobs {
            threads.push(scope.spawn(|| {
                again(&|| {
                    let jobs = [begin_jobs(node, &kept)?, begin_jobs(node, &cleared)?];
                    kept.check_pages(0..PAGES / 8, seed)?;
                    drop(jobs);
                    Ok(())
                })
            }));
        }
        for thread in threads {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    })
}
