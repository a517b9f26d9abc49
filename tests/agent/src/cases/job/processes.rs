// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs of several processes, and a debugger beside them.

use crate::cases::support::depth;
use crate::cases::support::gate::Gate;
use crate::cases::support::jobs::{Jobs, expect_done};
use crate::cases::support::prelude::*;
use crate::cases::support::ptrace;
use hmm_uapi::client::JobRequest;

pub(super) const CASES: &[Case] = &[
    Case::new("job/processes-read-one-page-anon-4k", || {
        inherited(Memory::single(PAGES)?)
    }),
    Case::new("job/processes-read-one-page-anon-thp", || {
        inherited(Memory::huge(1)?)
    }),
    Case::new("job/processes-write-one-shared-page", one_shared_page),
    Case::new("job/debugger-beside-jobs-anon-4k", debugger),
];

const PAGES: usize = 64;
const PROCESSES: u64 = 6;

/// Children use the pages that they have inherited all at once, by jobs of their own: they read the same pages, and each writes
/// to a copy. Of the pages, all are on the device, none, or each goes there when it is touched.
fn inherited(mut memory: Memory) -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let words = (memory.length() / 8) as u64;
    for round in 0..depth::rounds(6)? {
        memory.fill(1);
        let sum = jobs.done(&JobRequest::crc32c(memory.range(), 0))?.result;
        if round % 3 == 1 {
            mover.to_device(memory.range())?;
        }
        let go = Gate::new()?;
        let start = |number: u64| {
            fork(|| {
                let jobs = Jobs::open()?;
                if round % 3 == 2 {
                    jobs.move_at_touch(memory.range())?;
                }
                go.wait()?;
                let found = jobs.done(&JobRequest::crc32c(memory.range(), 0))?.result;
                ensure!(found == sum, "the device read {found:#x}");
                let first = memory.range().start;
                jobs.done(&JobRequest::fill(memory.range(), 0))?;
                jobs.done(&JobRequest::atomic_add(first, words, 8, number))?;
                for word in memory.bytes().chunks_exact(8) {
                    let word = u64::from_ne_bytes(word.try_into()?);
                    ensure!(word == number, "process {number} has {word}");
                }
                Ok(())
            })
        };
        let children: Vec<_> = (1..=PROCESSES).map(start).collect::<Result<_>>()?;
        for _ in 0..PROCESSES {
            go.open()?;
        }
        for child in children {
            child.wait().with_context(|| format!("round {round}"))?;
        }
        memory.check(1)?;
    }
    Ok(())
}

/// Processes write to parts of one page that all of them have, by jobs, and see what the others write.
fn one_shared_page() -> Result<()> {
    let memory = Memory::shared(1)?;
    let part = |number: u64| {
        let bytes = PAGE as u64 / (PROCESSES + 1);
        let start = memory.range().start + number * (bytes & !7);
        start..start + (bytes & !7)
    };
    for round in 0..depth::rounds(10)? {
        let go = Gate::new()?;
        let pattern = |number: u64| (u64::from(round) << 32 | number) + 1;
        let start = |number: u64| {
            fork(|| {
                let jobs = Jobs::open()?;
                go.wait()?;
                jobs.done(&JobRequest::fill(part(number), pattern(number)))?;
                jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
                Ok(())
            })
        };
        let children: Vec<_> = (0..PROCESSES).map(start).collect::<Result<_>>()?;
        for _ in 0..PROCESSES {
            go.open()?;
        }
        for child in children {
            child.wait()?;
        }
        for number in 0..PROCESSES {
            let range = part(number);
            let start = (range.start - memory.range().start) as usize;
            let bytes = &memory.bytes()[start..start + (range.end - range.start) as usize];
            ensure!(
                bytes
                    .chunks_exact(8)
                    .all(|word| word == pattern(number).to_ne_bytes()),
                "the part of process {number} is wrong in round {round}"
            );
        }
    }
    Ok(())
}

/// A debugger stops a process, reads and changes its words, and lets it go on, while a job adds to all the others. Both see
/// what they wrote, and nothing is lost.
fn debugger() -> Result<()> {
    const ROUNDS: u64 = 20;
    let jobs = Jobs::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.bytes_mut().fill(0);
    let (ready, go) = (Gate::new()?, Gate::new()?);
    let child = fork(|| {
        ready.open()?;
        go.wait()?;
        for (page, bytes) in memory.bytes().chunks_exact(PAGE).enumerate() {
            for (index, word) in bytes.chunks_exact(8).enumerate() {
                let word = u64::from_ne_bytes(word.try_into()?);
                let expected = match index {
                    0 => page as u64 + 7 * ROUNDS,
                    _ => ROUNDS,
                };
                ensure!(word == expected, "word {index} of page {page} is {word}");
            }
        }
        Ok(())
    })?;
    ready.wait()?;
    let pid = child.id()?;
    let mover = Mover::open()?.of(child.process()?);
    let word = |page: usize| memory.part(page..page + 1).start;
    for round in 1..=ROUNDS {
        if round % 2 == 0 {
            mover.to_device(memory.range())?;
        }
        // All words of each page but the first, which is the debugger's.
        let others = (PAGE / 8 - 1) as u64;
        let ids = (0..PAGES)
            .map(|page| {
                let add = JobRequest::atomic_add(word(page) + 8, others, 8, 1);
                Ok(jobs.device.begin_job_for(pid.try_into()?, &add)?)
            })
            .collect::<Result<Vec<_>>>()?;
        let tracer = ptrace::Tracer::attach(pid)?;
        for page in 0..PAGES {
            let before = tracer.peek(word(page))?;
            let expected = match round {
                1 => 0,
                _ => page as u64 + 7 * (round - 1),
            };
            ensure!(before == expected, "page {page}, round {round}: {before}");
            tracer.poke(word(page), page as u64 + 7 * round)?;
        }
        tracer.detach()?;
        for id in ids {
            expect_done(jobs.wait(id)?).with_context(|| format!("round {round}"))?;
        }
    }
    go.open()?;
    child.wait()
}
