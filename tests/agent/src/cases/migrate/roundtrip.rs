// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whole ranges there and back, every byte compared.

use crate::cases::support::prelude::*;
use crate::cases::support::{gate::Gate, proc_self};

pub(super) const CASES: &[Case] = &[
    Case::new("migrate/roundtrip-anon-4k", single_pages),
    Case::new("migrate/roundtrip-anon-thp", huge_pages),
    Case::new("migrate/roundtrip-anon-default", default_pages),
    Case::new("migrate/roundtrip-repeated-anon-4k", repeated),
    Case::new("migrate/roundtrip-large-anon-4k", large),
    Case::new("migrate/roundtrip-readonly-anon-4k", read_only),
    Case::new("migrate/roundtrip-other-process-anon-4k", other_process),
    Case::new("migrate/already-there-anon-4k", already_there),
    Case::new("migrate/residency-map-anon-4k", residency_map),
];

/// Sizes around the limits of a batch.
const PAGES: [usize; 10] = [1, 2, 3, 16, 255, 511, 512, 513, 1024, 1029];

fn roundtrip(mover: &Mover, memory: &mut Memory, seed: u64) -> Result<()> {
    let pages = memory.pages();
    memory.fill(seed);
    mover.to_device(memory.range())?.expect(pages, none())?;
    mover.expect_on_device(memory.range())?;
    mover.to_system(memory.range())?.expect(pages, none())?;
    mover.expect_in_system(memory.range())?;
    memory.check(seed)?;
    // The second way home is the CPU's: by faults.
    mover.all_to_device(memory.range())?;
    memory.check(seed)?;
    mover.expect_in_system(memory.range())
}

fn single_pages() -> Result<()> {
    let mover = Mover::open()?;
    for (seed, pages) in (1..).zip(PAGES) {
        let mut memory = Memory::single(pages)?;
        roundtrip(&mover, &mut memory, seed).with_context(|| format!("{pages} pages"))?;
    }
    Ok(())
}

fn huge_pages() -> Result<()> {
    let mover = Mover::open()?;
    for huge_pages in [1, 2, 5] {
        let mut memory = Memory::huge(huge_pages)?;
        memory.fill(9);
        let huge = proc_self::smaps(memory.range().start, "AnonHugePages")?;
        if huge == 0 {
            return Err(skip("the kernel gives no huge pages"));
        }
        roundtrip(&mover, &mut memory, 1).with_context(|| format!("{huge_pages} huge pages"))?;
    }
    Ok(())
}

fn default_pages() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::anonymous(3 * HUGE / PAGE + 77)?;
    roundtrip(&mover, &mut memory, 1)
}

fn repeated() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(100)?;
    for seed in 1..=10 {
        roundtrip(&mover, &mut memory, seed).with_context(|| format!("round {seed}"))?;
    }
    Ok(())
}

/// 64 MiB: many batches, and one doorbell for each.
fn large() -> Result<()> {
    let mover = Mover::open()?;
    let batch_pages = mover.device.info()?.max_batch_pages as usize;
    let mut memory = Memory::single(16 << 10)?;
    let pages = memory.pages();
    memory.fill(1);
    for direction in [Direction::ToDevice, Direction::ToSystem] {
        let before = mover.device.stats()?;
        let moved = match direction {
            Direction::ToDevice => mover.to_device(memory.range())?,
            Direction::ToSystem => mover.to_system(memory.range())?,
        };
        moved.expect(pages, none())?;
        let least = pages.div_ceil(batch_pages) as u64;
        ensure!(
            moved.batches >= least,
            "{pages} pages in {} batches of at most {batch_pages}",
            moved.batches
        );
        ensure!(
            (1..=moved.batches).contains(&moved.doorbells),
            "{} batches took {} doorbells",
            moved.batches,
            moved.doorbells
        );
        let after = mover.device.stats()?;
        ensure!(
            after.batches - before.batches == moved.batches
                && after.doorbells - before.doorbells == moved.doorbells,
            "the call did {} batches and {} doorbells; the counters grew by {} and {}",
            moved.batches,
            moved.doorbells,
            after.batches - before.batches,
            after.doorbells - before.doorbells
        );
        let bytes = match direction {
            Direction::ToDevice => after.bytes_to_device - before.bytes_to_device,
            Direction::ToSystem => after.bytes_to_system - before.bytes_to_system,
        };
        ensure!(
            bytes == memory.length() as u64,
            "{bytes} bytes counted, and {} moved",
            memory.length()
        );
    }
    memory.check(1)
}

fn read_only() -> Result<()> {
    use rustix::mm::MprotectFlags;
    use rustix::process::Signal;
    let mover = Mover::open()?;
    let mut memory = Memory::single(40)?;
    memory.fill(1);
    memory.protect(0..40, MprotectFlags::READ)?;
    mover.all_to_device(memory.range())?;
    memory.check(1)?;
    mover.all_to_device(memory.range())?;
    // A write on the device side's page is refused like one on the system side's.
    let child = fork(|| {
        memory.bytes_mut()[0] = 1;
        Ok(())
    })?;
    child.wait_for_signal(Signal::SEGV)?;
    mover.to_system(memory.range())?;
    memory.check(1)?;
    memory.protect(0..40, MprotectFlags::READ | MprotectFlags::WRITE)?;
    roundtrip(&mover, &mut memory, 2)
}

fn other_process() -> Result<()> {
    let mut memory = Memory::single(600)?;
    let (ready, moved, checked) = (Gate::new()?, Gate::new()?, Gate::new()?);
    let range = memory.range();
    let child = fork(|| {
        memory.fill(7);
        ready.open()?;
        moved.wait()?;
        memory.check(7)?;
        memory.fill(8);
        checked.open()?;
        moved.wait()?;
        memory.check(8)
    })?;
    ready.wait()?;
    let mover = Mover::open()?.of(child.process()?);
    mover.to_device(range.clone())?.expect(600, none())?;
    mover.expect_on_device(range.clone())?;
    mover.to_system(range.clone())?.expect(600, none())?;
    mover.all_to_device(range.clone())?;
    moved.open()?;
    checked.wait()?;
    mover.expect_in_system(range.clone())?;
    mover.all_to_device(range)?;
    moved.open()?;
    child.wait()
}

fn already_there() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(30)?;
    memory.fill(1);
    mover
        .to_system(memory.range())?
        .expect(0, &[(SkipReason::Already, 30)])?;
    mover.to_device(memory.part(10..15))?.expect(5, none())?;
    mover
        .to_device(memory.range())?
        .expect(25, &[(SkipReason::Already, 5)])?;
    mover
        .to_device(memory.range())?
        .expect(0, &[(SkipReason::Already, 30)])?;
    mover.to_system(memory.part(0..1))?.expect(1, none())?;
    mover
        .to_system(memory.range())?
        .expect(29, &[(SkipReason::Already, 1)])?;
    memory.check(1)
}

fn residency_map() -> Result<()> {
    use hmm_uapi::PageState::{Device, None, System};
    let mover = Mover::open()?;
    let mut memory = Memory::single(9)?;
    memory.fill_pages(0..6, 1);
    mover.to_device(memory.part(1..2))?.expect(1, &[])?;
    mover.to_device(memory.part(3..5))?.expect(2, &[])?;
    memory.unmap(8..9)?;
    let expected = [
        System, Device, System, Device, Device, System, None, None, None,
    ];
    let found = mover.map(memory.range())?;
    ensure!(found == expected, "expected {expected:?}, found {found:?}");
    // Asking moved nothing.
    mover.expect_residency(memory.range(), 3, 3)?;
    memory.check_pages(0..6, 1)
}
