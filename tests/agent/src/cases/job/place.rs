// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where memory is that the device touches, by advice; and more of it than the device holds.

use crate::cases::support::depth;
use crate::cases::support::jobs::{Jobs, blocks, crc32c, expect_done};
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use crate::cases::support::swap::Swap;
use hmm_uapi::client::{Advice, JobRequest};
use hmm_uapi::{NEVER_TOUCHES, PreferredSide};
use std::ops::Range;

pub(super) const CASES: &[Case] = &[
    Case::new("job/stays-without-advice-anon-4k", stays),
    Case::new("job/moves-at-first-touch-anon-4k", first_touch),
    Case::new("job/moves-at-first-touch-anon-thp", first_touch_huge),
    Case::new("job/moves-at-third-touch-anon-4k", third_touch),
    Case::new("job/advice-on-a-part-anon-4k", || {
        advice_on_a_part(Memory::single(2 * PAGES_OF_BLOCK)?)
    }),
    Case::new("job/advice-on-a-part-anon-thp", || {
        advice_on_a_part(Memory::huge(2)?)
    }),
    Case::new("job/advice-after-use-anon-4k", || {
        advice_after_use(Memory::single(2 * PAGES_OF_BLOCK)?)
    }),
    Case::new("job/advice-after-use-anon-thp", || {
        advice_after_use(Memory::huge(2)?)
    }),
    Case::new("job/advice-on-what-a-job-has-for-itself-anon-4k", || {
        advice_on_exclusive(Memory::single(PAGES_OF_BLOCK)?)
    }),
    Case::new("job/advice-on-what-a-job-has-for-itself-anon-thp", || {
        advice_on_exclusive(Memory::huge(1)?)
    }),
    Case::new("job/advice-on-what-was-swapped-anon-4k", advice_on_swapped),
    Case::new("job/advice-while-jobs-run-anon-4k", advice_while_jobs_run),
    Case::new("job/advice-beside-a-touch-anon-4k", || {
        advice_beside_a_touch(Memory::single(PAGES_OF_BLOCK)?)
    }),
    Case::new("job/advice-beside-a-touch-anon-thp", || {
        advice_beside_a_touch(Memory::huge(1)?)
    }),
    Case::new("job/moves-from-another-device-anon-4k", || {
        from_another(Memory::single(2048)?)
    }),
    Case::new("job/moves-from-another-device-anon-thp", || {
        from_another(Memory::huge(4)?)
    }),
    Case::new("job/oversubscribed-anon-4k", oversubscribed).within(300),
];

/// Pages of 4 KiB in a block of 2 MiB, which a fault of the device looks at as a whole.
const PAGES_OF_BLOCK: usize = 512;

fn advise(jobs: &Jobs, memory: &Memory, side: PreferredSide, touches: u32) -> Result<()> {
    advise_part(jobs, memory.range(), side, touches)
}

fn advise_part(jobs: &Jobs, range: Range<u64>, side: PreferredSide, touches: u32) -> Result<()> {
    Ok(jobs.device.advise(
        Process::Caller,
        range,
        Advice {
            side: Some(side),
            touches: Some(touches),
            ..Advice::default()
        },
    )?)
}

/// Has the device read all of it. Returns how often it faulted.
fn crc(jobs: &Jobs, memory: &Memory) -> Result<u64> {
    Ok(jobs.done(&JobRequest::crc32c(memory.range(), 0))?.faults)
}

/// Without advice, and with advice not to move, the device uses memory where it is.
fn stays() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let mut memory = Memory::single(1024)?;
    memory.fill(1);
    crc(&jobs, &memory)?;
    mover.expect_in_system(memory.range())?;
    mover.all_to_device(memory.range())?;
    memory.check(1)?;
    mover.to_system(memory.range())?;
    advise(&jobs, &memory, PreferredSide::Device, NEVER_TOUCHES)?;
    for _ in 0..5 {
        crc(&jobs, &memory)?;
        mover.expect_in_system(memory.range())?;
    }
    memory.check(1)
}

/// One fault of the device for each block of 2 MiB moves the block.
fn first_touch() -> Result<()> {
    moves_at_first(Memory::single(2048)?)
}

fn first_touch_huge() -> Result<()> {
    moves_at_first(Memory::huge(4)?)
}

fn moves_at_first(mut memory: Memory) -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    memory.fill(1);
    let blocks = blocks(&memory.range());
    // With the side alone, and with the number of touches alone.
    for (side, touches) in [(PreferredSide::Device, 0), (PreferredSide::None, 1)] {
        mover.to_system(memory.range())?;
        advise(&jobs, &memory, side, touches)?;
        let faults = crc(&jobs, &memory)?;
        mover.expect_on_device(memory.range())?;
        ensure!(faults == blocks, "{faults} faults for {blocks} blocks");
        ensure!(
            crc(&jobs, &memory)? == 0,
            "memory that is there faults again"
        );
        memory.check(1)?;
    }
    Ok(())
}

/// Advice on parts of blocks is followed also if the job begins before them, and the rest stays where it is.
fn advice_on_a_part(mut memory: Memory) -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    memory.fill(1);
    let sum = u64::from(crc32c(memory.bytes()));
    // Two parts of the first block, and one that goes on into the second.
    let parts = [20..24, 100..200, 400..PAGES_OF_BLOCK + 50];
    for part in &parts {
        advise_part(&jobs, memory.part(part.clone()), PreferredSide::Device, 0)?;
    }
    let report = jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
    ensure!(report.result == sum, "the device read something else");
    for part in &parts {
        mover.expect_on_device(memory.part(part.clone()))?;
    }
    for rest in [
        0..20,
        24..100,
        200..400,
        PAGES_OF_BLOCK + 50..memory.pages(),
    ] {
        mover.expect_in_system(memory.part(rest))?;
    }
    memory.check(1)
}

/// Advice is followed also where the device may access the memory already.
fn advice_after_use(mut memory: Memory) -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    memory.fill(1);
    crc(&jobs, &memory)?;
    ensure!(crc(&jobs, &memory)? == 0, "the device has it mapped");
    advise(&jobs, &memory, PreferredSide::System, NEVER_TOUCHES)?;
    ensure!(crc(&jobs, &memory)? == 0, "advice that moves nothing");
    let (part, rest) = (100..300, 300..memory.pages());
    advise_part(&jobs, memory.part(part.clone()), PreferredSide::Device, 1)?;
    crc(&jobs, &memory)?;
    mover.expect_on_device(memory.part(part))?;
    mover.expect_in_system(memory.part(rest))?;
    advise(&jobs, &memory, PreferredSide::Device, 2)?;
    crc(&jobs, &memory)?;
    advise(&jobs, &memory, PreferredSide::Device, 1)?;
    crc(&jobs, &memory)?;
    mover.expect_on_device(memory.range())?;
    // Said once more, it changes nothing.
    advise(&jobs, &memory, PreferredSide::Device, 1)?;
    ensure!(crc(&jobs, &memory)? == 0, "the same advice");
    memory.check(1)
}

/// Pages of system memory that the device has for itself, to add to them, move like all others.
fn advice_on_exclusive(mut memory: Memory) -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    memory.bytes_mut().fill(0);
    let words = (memory.length() / 8) as u64;
    let add = JobRequest::atomic_add(memory.range().start, words, 8, 1);
    jobs.done(&add)?;
    ensure!(jobs.done(&add)?.faults == 0, "the device has it for itself");
    advise(&jobs, &memory, PreferredSide::Device, 1)?;
    jobs.done(&add)?;
    mover.expect_on_device(memory.range())?;
    for (index, word) in memory.bytes().chunks_exact(8).enumerate() {
        let word = u64::from_ne_bytes(word.try_into()?);
        ensure!(word == 3, "word {index} is {word}");
    }
    Ok(())
}

/// Memory that was swapped out moves when it is back, by the same touch.
fn advice_on_swapped() -> Result<()> {
    let _swap = Swap::new(4 * PAGES_OF_BLOCK as u32)?;
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let mut memory = Memory::table()?;
    memory.fill(1);
    let sum = u64::from(crc32c(memory.bytes()));
    memory.advise(0..memory.pages(), rustix::mm::Advice::LinuxPageOut)?;
    let counts = mover.device.residency(Process::Caller, memory.range())?;
    ensure!(counts.system_pages < 512, "nothing was swapped out");
    advise(&jobs, &memory, PreferredSide::Device, 1)?;
    let report = jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
    ensure!(report.result == sum, "the device read something else");
    // Each processor of the kernel has references to the pages that it swapped in last, up to a batch of 31.
    let counts = mover.device.residency(Process::Caller, memory.range())?;
    ensure!(
        counts.device_pages >= 512 - 2 * 31,
        "{counts:?} after a job that touched all"
    );
    memory.check(1)
}

/// Advice comes while jobs fault on the memory. Once it is given, no page stays in system memory that a job touches.
fn advice_while_jobs_run() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    for round in 0..depth::rounds(24)? {
        let mut memory = Memory::single(2 * PAGES_OF_BLOCK)?;
        memory.fill(1);
        let sum = JobRequest::crc32c(memory.range(), 0);
        let ids = (0..4)
            .map(|_| Ok(jobs.begin(&sum)?))
            .collect::<Result<Vec<_>>>()?;
        // At another moment each time.
        for _ in 0..round * 50 {
            std::hint::spin_loop();
        }
        advise(&jobs, &memory, PreferredSide::Device, 1)?;
        for id in ids {
            expect_done(jobs.wait(id)?)?;
        }
        jobs.done(&sum)?;
        let counts = mover.device.residency(Process::Caller, memory.range())?;
        // One that another fault holds for a moment does not move.
        ensure!(
            counts.system_pages <= 16,
            "{counts:?} after a job that touched all, in round {round}"
        );
        memory.check(1)?;
    }
    Ok(())
}

/// What is advised about pages beside those that a job touches waits for a touch of their own.
fn advice_beside_a_touch(mut memory: Memory) -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    memory.fill(1);
    let (touched, beside) = (memory.part(0..10), memory.part(12..20));
    advise_part(&jobs, beside.clone(), PreferredSide::Device, 0)?;
    jobs.done(&JobRequest::crc32c(touched, 0))?;
    mover.expect_in_system(memory.range())?;
    // In the middle of the part, which moves as a whole.
    let report = jobs.done(&JobRequest::crc32c(memory.part(15..16), 0))?;
    ensure!(report.faults == 1, "{} faults", report.faults);
    mover.expect_on_device(beside)?;
    mover.expect_in_system(memory.part(0..12))?;
    mover.expect_in_system(memory.part(20..memory.pages()))?;
    memory.check(1)
}

/// Memory stays for two faults of a block, and moves by the third.
fn third_touch() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let mut memory = Memory::table()?;
    memory.fill(1);
    advise(&jobs, &memory, PreferredSide::None, 3)?;
    let mut faults = 0;
    for round in 0..20 {
        // The process writes to a page anew, so that the device has to fault.
        memory.advise(0..1, rustix::mm::Advice::LinuxDontNeed)?;
        memory.fill_pages(0..1, 1);
        faults += crc(&jobs, &memory)?;
        let counts = mover.device.residency(Process::Caller, memory.range())?;
        if faults < 3 {
            ensure!(
                counts.device_pages == 0,
                "{} pages moved after {faults} faults, in round {round}",
                counts.device_pages
            );
        }
        if counts.device_pages > 0 {
            ensure!(faults >= 3, "moved after {faults} faults");
            return memory.check(1);
        }
    }
    bail!("nothing moved after {faults} faults")
}

/// Memory that another device holds comes by the same fault as memory of the system, also if a part of it is there. What
/// the other device has not let go of at that moment stays in system memory.
fn from_another(mut memory: Memory) -> Result<()> {
    let (first, second) = (nodes::first(), nodes::second()?);
    let (jobs, movers) = (
        Jobs::on(&second)?,
        [Mover::on(&first)?, Mover::on(&second)?],
    );
    memory.fill(1);
    let range = memory.range();
    let sum = u64::from(crc32c(memory.bytes()));
    advise(&jobs, &memory, PreferredSide::Device, 1)?;
    for elsewhere in [memory.pages(), memory.pages() / 3] {
        movers[1].to_system(range.clone())?;
        movers[0].all_to_device(memory.part(0..elsewhere))?;
        let report = jobs.done(&JobRequest::crc32c(range.clone(), 0))?;
        ensure!(report.result == sum, "the device read something else");
        let counts = movers[1].device.residency(Process::Caller, range.clone())?;
        ensure!(
            counts.device_pages as usize >= memory.pages() / 2,
            "with {elsewhere} pages on the other device: {counts:?}"
        );
    }
    memory.check(1)
}

/// The device touches twice what it holds, by its faults alone: memory goes as more comes, and nothing is lost.
fn oversubscribed() -> Result<()> {
    let node = nodes::second()?;
    let (jobs, mover) = (Jobs::on(&node)?, Mover::on(&node)?);
    let room = (mover.device.info()?.memory_bytes / PAGE as u64) as usize;
    if room > 64 << 10 {
        return Err(skip("the second device has more than 256 MiB"));
    }
    let pages = 2 * room;
    let mut memory = Memory::single(pages)?;
    memory.fill(1);
    advise(&jobs, &memory, PreferredSide::Device, 1)?;
    let before = mover.device.stats()?;
    for round in 1..=3 {
        let report = jobs
            .done(&JobRequest::atomic_add(
                memory.range().start,
                (memory.length() / 8) as u64,
                8,
                0,
            ))
            .with_context(|| format!("round {round}"))?;
        eprintln!("round {round}: {} faults", report.faults);
        // What has no room at the same time faults in each round, and a block that moves as a whole does so once.
        ensure!(
            report.faults >= blocks(&memory.range()) / 2,
            "{} faults for {} blocks in round {round}",
            report.faults,
            blocks(&memory.range())
        );
        memory.check_pages(0..64, 1)?;
    }
    let after = mover.device.stats()?;
    ensure!(
        after.bytes_to_device - before.bytes_to_device > (room * PAGE) as u64
            && after.bytes_by_eviction > before.bytes_by_eviction,
        "{} bytes came and {} were evicted, and {} have room",
        after.bytes_to_device - before.bytes_to_device,
        after.bytes_by_eviction - before.bytes_by_eviction,
        room * PAGE
    );
    memory.check(1)
}
