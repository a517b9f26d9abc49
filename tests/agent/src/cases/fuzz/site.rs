// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Processes with several threads that make random calls, beside one that changes the mappings.

use super::call::Caller;
use super::values::Values;
use crate::cases::support::ioctl::RawNode;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use crate::cases::support::random::Random;
use crate::cases::support::signals::{Calls, handle_by_nothing};
use hmm_uapi::JOB_WAIT_NR;
use rustix::mm::{Advice, MprotectFlags};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const PROCESSES: usize = 2;
/// Threads of a process that make calls.
const CALLERS: usize = 2;
const CALLS: usize = JOB_WAIT_NR as usize + 1;

/// Makes `rounds` calls in each of the threads.
pub(super) fn run(seed: u64, rounds: u32) -> Result<()> {
    let board = Memory::shared(1)?;
    let processes = (0..PROCESSES)
        .map(|index| fork(|| process(seed, rounds, index, &board)))
        .collect::<Result<Vec<_>>>()?;
    let results: Vec<_> = processes.into_iter().map(Child::wait).collect();
    results.into_iter().collect()
}

/// Memory of one process.
struct Area {
    single: Memory,
    huge: Memory,
    locked: Memory,
    hole: Memory,
    others: [Memory; 3],
    /// Where a mapping comes and goes.
    passing: Range<u64>,
}

const PASSING: usize = 700;

impl Area {
    fn new() -> Result<Self> {
        let mut area = Self {
            single: Memory::single(300)?,
            huge: Memory::huge(2)?,
            locked: Memory::single(16)?,
            hole: Memory::single(2000)?,
            others: [
                Memory::single(64)?,
                Memory::shared(64)?,
                Memory::reserved((1 << 40) / PAGE)?,
            ],
            passing: Memory::single(PASSING)?.range(),
        };
        area.single.fill(1);
        area.huge.fill(2);
        area.locked.fill(3);
        area.locked.lock(0..16)?;
        area.others[0].protect(0..64, MprotectFlags::empty())?;
        area.others[1].fill(4);
        Ok(area)
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        [&self.single, &self.huge, &self.locked, &self.hole]
            .into_iter()
            .chain(&self.others)
            .map(Memory::range)
            .chain([self.passing.clone()])
            .collect()
    }

    fn check(&self) -> Result<()> {
        self.single.check(1).context("single pages")?;
        self.huge.check(2).context("huge pages")?;
        self.locked.check(3).context("locked pages")?;
        self.others[1].check(4).context("shared pages")?;
        self.hole.check_zero(0..8).context("holes")
    }
}

/// Threads that get signals while they are at it.
type Threads = Mutex<Vec<(usize, libc::pthread_t)>>;

fn process(seed: u64, rounds: u32, index: usize, board: &Memory) -> Result<()> {
    handle_by_nothing(Calls::End)?;
    let area = Area::new()?;
    let own = std::process::id();
    board.word(4 * index).store(own, Ordering::SeqCst);
    let mut pids = vec![own.cast_signed()];
    for other in (0..PROCESSES).filter(|&other| other != index) {
        let pid = loop {
            match board.word(4 * other).load(Ordering::SeqCst) {
                0 => std::thread::yield_now(),
                pid => break pid,
            }
        };
        pids.push(pid.cast_signed());
    }
    let succeeded: [AtomicUsize; CALLS] = std::array::from_fn(|_| AtomicUsize::new(0));
    let threads = Threads::default();
    let left = AtomicUsize::new(CALLERS);
    let thread_seed = |thread: usize| seed ^ ((index * 16 + thread + 1) as u64) << 40;
    let results = std::thread::scope(|scope| {
        let (area, pids, succeeded) = (&area, &pids, &succeeded);
        let (threads, left) = (&threads, &left);
        let callers: Vec<_> = (0..CALLERS)
            .map(|thread| {
                let values = Values {
                    random: Random::new(thread_seed(thread)),
                    areas: area.ranges(),
                    pids: pids.clone(),
                };
                scope.spawn(move || {
                    // SAFETY: The id of the calling thread takes no arguments.
                    let id = unsafe { libc::pthread_self() };
                    lock(threads).push((thread, id));
                    let result = calls(values, rounds, succeeded);
                    lock(threads).retain(|&(other, _)| other != thread);
                    left.fetch_sub(1, Ordering::SeqCst);
                    result.with_context(|| format!("process {index}, thread {thread}"))
                })
            })
            .collect();
        let changes = change(area, Random::new(thread_seed(CALLERS)), threads, left);
        let mut results: Vec<Result<()>> = callers
            .into_iter()
            .map(|caller| caller.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect();
        results.push(changes.context("the thread that changes mappings"));
        results
    });
    results.into_iter().collect::<Result<()>>()?;
    area.check().context("at the end")?;
    let counts: Vec<_> = succeeded
        .iter()
        .map(|count| count.load(Ordering::SeqCst))
        .collect();
    eprintln!("process {index}: successful calls by number: {counts:?}");
    ensure!(
        !counts.contains(&0),
        "an ioctl never succeeded, so little was tested: {counts:?}"
    );
    Ok(())
}

fn lock(threads: &Threads) -> std::sync::MutexGuard<'_, Vec<(usize, libc::pthread_t)>> {
    threads
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn calls(mut values: Values, rounds: u32, succeeded: &[AtomicUsize; CALLS]) -> Result<()> {
    let mut caller = Caller::new(RawNode::open(&nodes::first())?)?;
    for round in 0..rounds {
        let (number, done) = caller
            .call(&mut values)
            .with_context(|| format!("round {round}"))?;
        if let (true, Some(count)) = (done, succeeded.get(usize::from(number))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Changes mappings, forks, looks at the memory and interrupts calls until no caller is left.
fn change(area: &Area, mut random: Random, threads: &Threads, left: &AtomicUsize) -> Result<()> {
    while left.load(Ordering::SeqCst) > 0 {
        match random.below(5) {
            0 => area.check()?,
            1 => fork(|| area.check())?.wait().context("a child")?,
            2 => {
                let mut memory = Memory::single(PASSING)?;
                memory.fill(5);
                memory.unmap(100..200)?;
                memory.check_pages(0..100, 5)?;
                memory.check_pages(200..PASSING, 5)?;
            }
            3 => area.hole.advise(0..2000, Advice::LinuxDontNeed)?,
            _ => {
                for &(_, thread) in lock(threads).iter() {
                    // SAFETY: A thread in the list has not ended.
                    unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                }
            }
        }
    }
    Ok(())
}
