// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `evict/*`: more is wanted on the device than it holds. These cases use the second device, which is small.

use super::support::jobs::Jobs;
use super::support::prelude::*;
use super::support::{driver, kernel, nodes};
use hmm_uapi::PreferredSide;
use hmm_uapi::client::{Advice, JobRequest};
use std::collections::VecDeque;

pub(super) const CASES: &[Case] = &[
    Case::new("evict/oldest-first-anon-4k", oldest_first),
    Case::new("evict/wanted-again-stays-anon-4k", wanted_again_stays),
    Case::new(
        "evict/accessed-by-a-job-stays-anon-4k",
        accessed_by_a_job_stays,
    ),
    Case::new(
        "evict/access-bits-save-faults-anon-4k",
        access_bits_save_faults,
    )
    .within(300),
    Case::new("evict/not-for-itself-anon-4k", not_for_itself),
    Case::new(
        "evict/nothing-while-all-fits-anon-4k",
        nothing_while_all_fits,
    ),
    Case::new("evict/four-times-the-device-anon-4k", four_times_the_device).within(300),
    Case::new("evict/partly-unmapped-anon-4k", partly_unmapped),
    Case::new("evict/processes-that-exit-anon-4k", processes_that_exit).within(300),
    Case::new("evict/two-working-sets-anon-4k", two_working_sets).within(300),
];

/// Most device pages that the cases fill.
const MOST: usize = 64 << 10;

/// Moves with the second device, and how many pages that has room for.
fn small() -> Result<(Mover, usize)> {
    let mover = Mover::on(&nodes::second()?)?;
    let room = (mover.device.info()?.memory_bytes / PAGE as u64) as usize;
    if room > MOST {
        return Err(skip("the second device has more than 256 MiB"));
    }
    Ok((mover, room))
}

/// Memory on the device with every byte of seed `seed`.
fn resident(mover: &Mover, pages: usize, seed: u64) -> Result<Memory> {
    let mut memory = Memory::single(pages)?;
    memory.fill(seed);
    mover
        .all_to_device(memory.range())
        .with_context(|| format!("the memory of seed {seed}"))?;
    Ok(memory)
}

fn evicted(mover: &Mover) -> Result<u64> {
    Ok(mover.device.stats()?.bytes_by_eviction / PAGE as u64)
}

/// How many pages of a range are on the device.
fn on_device(mover: &Mover, memory: &Memory) -> Result<u64> {
    let residency = mover.device.residency(Process::Caller, memory.range())?;
    Ok(residency.device_pages)
}

fn oldest_first() -> Result<()> {
    let (mover, room) = small()?;
    let part = room / 4;
    let before = evicted(&mover)?;
    let old = resident(&mover, part, 1)?;
    let middle = resident(&mover, part, 2)?;
    let young = resident(&mover, part, 3)?;
    let new = resident(&mover, part + part / 2, 4)?;
    ensure!(
        evicted(&mover)? >= before + part as u64 / 2,
        "nothing was evicted"
    );
    ensure!(
        on_device(&mover, &old)? <= part as u64 / 2,
        "the oldest pages are still on the device"
    );
    // The background may take what is next, up to a sixteenth of the device.
    ensure!(
        on_device(&mover, &middle)? + on_device(&mover, &young)? >= (2 * part - room / 8) as u64,
        "younger pages were evicted before older ones"
    );
    for (memory, seed) in [(&old, 1), (&middle, 2), (&young, 3), (&new, 4)] {
        memory.check(seed)?;
    }
    Ok(())
}

fn wanted_again_stays() -> Result<()> {
    let (mover, room) = small()?;
    let part = room / 4;
    let first = resident(&mover, part, 1)?;
    let second = resident(&mover, 2 * part, 2)?;
    let again = mover.to_device(first.range())?;
    ensure!(
        again.skipped(SkipReason::Already) == part,
        "the first part was not on the device any more: {again:?}"
    );
    let third = resident(&mover, part + part / 2, 3)?;
    mover.expect_on_device(first.range())?;
    ensure!(
        on_device(&mover, &second)? <= 2 * part as u64 - part as u64 / 2,
        "what was wanted again went, and the other stayed"
    );
    first.check(1)?;
    second.check(2)?;
    third.check(3)
}

/// The oldest pages stay, and younger ones go, if the device has used the old ones since.
fn accessed_by_a_job_stays() -> Result<()> {
    let (mover, room) = small()?;
    let jobs = Jobs::on(&nodes::second()?)?;
    let part = room / 4;
    let used = resident(&mover, part, 1)?;
    let idle = resident(&mover, 2 * part, 2)?;
    jobs.done(&JobRequest::crc32c(used.range(), 0))?;
    let new = resident(&mover, part + part / 2, 3)?;
    // Younger pages share the last block with the older ones.
    let block = HUGE / PAGE;
    ensure!(
        on_device(&mover, &used)? >= (part - block) as u64,
        "pages that a job accessed were evicted"
    );
    ensure!(
        on_device(&mover, &idle)? <= (2 * part - part / 2 + block) as u64,
        "what a job accessed went, and the other stayed"
    );
    used.check(1)?;
    idle.check(2)?;
    new.check(3)
}

/// What a job uses again and again stays on the device, while other memory comes and goes and what the job uses shifts. Without
/// access bits the driver knows only what was wanted there last, and evicts it.
fn access_bits_save_faults() -> Result<()> {
    let with = faults_of_a_shifting_set()?;
    driver::unload()?;
    driver::load_with("access_bits=0")?;
    let without = faults_of_a_shifting_set();
    driver::unload()?;
    driver::load()?;
    let without = without?;
    eprintln!("{with} device faults with access bits, {without} without");
    ensure!(
        with < without,
        "{with} device faults with access bits, and {without} without"
    );
    Ok(())
}

/// How often jobs fault on a working set of half the device, which shifts by an eighth of that from time to time, while
/// memory comes to the device that is used only once, and stays there for a while.
fn faults_of_a_shifting_set() -> Result<u64> {
    const SHIFTS: usize = 4;
    const USES: usize = 4;
    const KEPT: usize = 2;
    let (mover, room) = small()?;
    let jobs = Jobs::on(&nodes::second()?)?;
    let (set, shift) = (room / 2, room / 16);
    let mut memory = Memory::single(set + SHIFTS * shift)?;
    memory.fill(1);
    let memory = memory;
    let advice = Advice {
        side: Some(PreferredSide::Device),
        ..Advice::default()
    };
    (jobs.device).advise(Process::Caller, memory.range(), advice)?;
    let (mut faults, mut kept) = (0, VecDeque::new());
    for first in (0..=SHIFTS).map(|step| step * shift) {
        for _ in 0..USES {
            let used = memory.part(first..first + set);
            faults += jobs.done(&JobRequest::crc32c(used, 0))?.faults;
            let mut once = Memory::single(room / 4)?;
            once.fill(2);
            mover.to_device(once.range())?;
            kept.push_back(once);
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
    }
    memory.check(1)?;
    Ok(faults)
}

/// A request that is larger than the device does not evict its own pages.
fn not_for_itself() -> Result<()> {
    let (mover, room) = small()?;
    let mut memory = Memory::single(room + 2000)?;
    memory.fill(1);
    let before = evicted(&mover)?;
    let moved = mover.call(memory.range(), Direction::ToDevice, MigrateFlags::default())?;
    ensure!(
        moved.skipped(SkipReason::NoDeviceMemory) >= 2000 && moved.pages >= room * 9 / 10,
        "{room} pages of room: {moved:?}"
    );
    ensure!(
        evicted(&mover)? == before,
        "a request evicted its own pages"
    );
    memory.check(1)
}

fn nothing_while_all_fits() -> Result<()> {
    let (mover, room) = small()?;
    let before = evicted(&mover)?;
    let part = room / 8;
    let parts: Vec<Memory> = (0..8)
        .map(|part_of| resident(&mover, part - 8, part_of + 1))
        .collect::<Result<_>>()?;
    ensure!(
        evicted(&mover)? == before,
        "pages were evicted though all fit"
    );
    // First all of them: a fault on one takes neighbours along.
    for memory in &parts {
        mover.expect_on_device(memory.range())?;
    }
    for (memory, seed) in parts.iter().zip(1..) {
        memory.check(seed)?;
    }
    Ok(())
}

fn four_times_the_device() -> Result<()> {
    let (mover, room) = small()?;
    let pages = 4 * room;
    let mut memory = Memory::single(pages)?;
    memory.fill(1);
    let chunk = room / 8;
    for round in 1..=2 {
        for first in (0..pages).step_by(chunk) {
            let part = first..pages.min(first + chunk);
            // All of it fits, at the cost of what is older.
            mover.all_to_device(memory.part(part.clone()))?;
            memory.check_pages(part.start..part.start + 16, round)?;
        }
        memory.check(round)?;
        memory.fill(round + 1);
    }
    memory.check(3)
}

/// Blocks that are mostly unmapped already give their memory back.
fn partly_unmapped() -> Result<()> {
    let (mover, room) = small()?;
    let mut memory = resident(&mover, room / 2, 1)?;
    let other = resident(&mover, room / 4, 2)?;
    for first in (0..room / 2).step_by(64) {
        memory.advise(first..first + 48, rustix::mm::Advice::LinuxDontNeed)?;
    }
    let new = resident(&mover, room * 5 / 8, 3)?;
    for first in (0..room / 2).step_by(64) {
        memory.check_zero(first..first + 48)?;
        memory.check_pages(first + 48..first + 64, 1)?;
    }
    memory.fill(4);
    memory.check(4)?;
    other.check(2)?;
    new.check(3)
}

/// Processes die while others need their device memory.
fn processes_that_exit() -> Result<()> {
    let (mover, room) = small()?;
    let mut new = Memory::single(room / 2)?;
    // A debug kernel takes half a minute for each.
    let rounds = if kernel::is_debug() { 5 } else { 20 };
    for round in 1..=rounds {
        let child = fork(|| {
            let mut memory = Memory::single(room * 3 / 4)?;
            memory.fill(7);
            // The other's request may be the later one, and then it comes first.
            mover.to_device(memory.range())?;
            memory.check_pages(0..16, 7)
        })?;
        new.fill(round);
        let moved = mover.to_device(new.range())?;
        child.wait()?;
        ensure!(
            moved.pages
                + moved.skipped(SkipReason::NoDeviceMemory)
                + moved.skipped(SkipReason::Already)
                == new.pages(),
            "round {round}: {moved:?}"
        );
        new.check(round)?;
    }
    Ok(())
}

/// Two processes whose working sets do not fit together, each at its own pace.
fn two_working_sets() -> Result<()> {
    let (mover, room) = small()?;
    let work = |seed: u64| -> Result<()> {
        let mut memory = Memory::single(room * 3 / 4)?;
        let chunk = memory.pages() / 6;
        for round in 1..=4 {
            memory.fill(seed + round);
            for first in (0..memory.pages()).step_by(chunk) {
                let part = first..memory.pages().min(first + chunk);
                mover.to_device(memory.part(part))?;
            }
            memory.check(seed + round)?;
        }
        Ok(())
    };
    let child = fork(|| work(100))?;
    work(200)?;
    child.wait()
}
