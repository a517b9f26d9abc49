// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Parts of mappings, and ranges over several mappings.

use crate::cases::support::prelude::*;
use crate::cases::support::{gate::Gate, proc_self, random::Random};
use rustix::mm::{Advice, MprotectFlags};

pub(super) const CASES: &[Case] = &[
    Case::new("migrate/subrange-anon-4k", subrange_of_single_pages),
    Case::new("migrate/subrange-anon-thp", subrange_of_huge_pages),
    Case::new("migrate/scattered-anon-4k", scattered),
    Case::new("migrate/holes-anon-4k", holes),
    Case::new("migrate/zero-page-anon-4k", zero_page),
    Case::new("migrate/populate-anon-4k", populate),
    Case::new(
        "migrate/populate-without-tables-anon-4k",
        populate_without_tables,
    ),
    Case::new("migrate/noaccess-anon-4k", no_access),
    Case::new("migrate/unmapped-gaps-anon-4k", unmapped),
    Case::new("migrate/several-mappings-anon-4k", several_mappings),
    Case::new("migrate/whole-process-mixed", whole_process).within(240),
];

fn subranges(memory: &mut Memory, parts: &[std::ops::Range<usize>]) -> Result<()> {
    let mover = Mover::open()?;
    let pages = memory.pages();
    for (seed, part) in (1..).zip(parts) {
        memory.fill(seed);
        mover
            .to_device(memory.part(part.clone()))?
            .expect(part.len(), none())
            .with_context(|| format!("pages {part:?}"))?;
        mover.expect_on_device(memory.part(part.clone()))?;
        mover.expect_residency(memory.range(), pages - part.len(), part.len())?;
        memory
            .check(seed)
            .with_context(|| format!("pages {part:?}"))?;
        mover.expect_in_system(memory.range())?;
    }
    Ok(())
}

fn subrange_of_single_pages() -> Result<()> {
    let mut memory = Memory::single(1100)?;
    subranges(
        &mut memory,
        &[
            0..1,
            1..2,
            1099..1100,
            3..10,
            0..512,
            1..513,
            511..513,
            500..1100,
            77..1031,
        ],
    )
}

fn subrange_of_huge_pages() -> Result<()> {
    // The kernel splits a huge page of which a part goes, so each part gets a new mapping.
    for part in [0..1, 511..512, 5..105, 300..700, 512..1024] {
        let mut memory = Memory::huge(2)?;
        subranges(&mut memory, &[part])?;
    }
    Ok(())
}

/// Runs of random length go there and back in random order.
fn scattered() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(700)?;
    memory.fill(1);
    let mut random = Random::new(1);
    let mut on_device = vec![false; memory.pages()];
    for _ in 0..120 {
        let first = random.below(memory.pages());
        let length = 1 + random.below((memory.pages() - first).min(60));
        let pages = first..first + length;
        let there = on_device[pages.clone()]
            .iter()
            .filter(|&&page| page)
            .count();
        let to_device = random.below(2) == 0;
        if to_device {
            mover
                .to_device(memory.part(pages.clone()))?
                .expect(length - there, &[(SkipReason::Already, there)])?;
        } else {
            mover
                .to_system(memory.part(pages.clone()))?
                .expect(there, &[(SkipReason::Already, length - there)])?;
        }
        on_device[pages].fill(to_device);
    }
    for (page, (state, &expected)) in mover
        .map(memory.range())?
        .iter()
        .zip(&on_device)
        .enumerate()
    {
        ensure!(
            (*state == hmm_uapi::PageState::Device) == expected,
            "page {page} is {state:?}, and on the device it is to be: {expected}"
        );
    }
    memory.check(1)
}

fn holes() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(301)?;
    let touched: Vec<usize> = (0..301).step_by(3).collect();
    for &page in &touched {
        memory.fill_pages(page..page + 1, 1);
    }
    let holes = 301 - touched.len();
    mover
        .to_device(memory.range())?
        .expect(touched.len(), &[(SkipReason::Hole, holes)])?;
    mover.expect_residency(memory.range(), 0, touched.len())?;
    mover
        .to_system(memory.range())?
        .expect(touched.len(), &[(SkipReason::Hole, holes)])?;
    mover.all_to_device(memory.part(0..1))?;
    for page in 0..301 {
        if page % 3 == 0 {
            memory.check_pages(page..page + 1, 1)?;
        } else {
            memory.check_zero(page..page + 1)?;
        }
    }
    Ok(())
}

/// Pages that were only read all map the shared zero page, which does not migrate.
fn zero_page() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(20)?;
    memory.touch(0..20);
    memory.fill_pages(4..6, 1);
    mover
        .to_device(memory.range())?
        .expect(2, &[(SkipReason::Hole, 18)])?;
    memory.check_pages(4..6, 1)?;
    memory.check_zero(0..4)?;
    memory.check_zero(6..20)
}

fn populate() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(530)?;
    memory.touch(0..10);
    memory.fill_pages(20..25, 1);
    mover
        .to_device_with(memory.range(), MigrateFlags::POPULATE)?
        .expect(530, none())?;
    mover.expect_on_device(memory.range())?;
    memory.check_pages(20..25, 1)?;
    memory.check_zero(0..20)?;
    memory.check_zero(25..530)?;
    mover.expect_in_system(memory.range())?;
    memory.fill(2);
    mover.all_to_device(memory.range())?;
    memory.check(2)
}

/// Holes are filled also where nothing has been touched, so that there is no page table.
fn populate_without_tables() -> Result<()> {
    const PAGES: usize = 4 * HUGE / PAGE;
    let mover = Mover::open()?;
    let memory = Memory::single(PAGES)?;
    mover
        .to_device_with(memory.range(), MigrateFlags::POPULATE)?
        .expect(PAGES, none())?;
    mover.expect_on_device(memory.range())?;
    memory.check_zero(0..PAGES)
}

fn no_access() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(60)?;
    memory.fill(1);
    memory.protect(10..30, MprotectFlags::empty())?;
    mover
        .to_device(memory.range())?
        .expect(40, &[(SkipReason::NoAccess, 20)])?;
    memory.protect(10..30, MprotectFlags::READ | MprotectFlags::WRITE)?;
    mover.expect_residency(memory.range(), 20, 40)?;
    memory.check(1)
}

fn unmapped() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(600)?;
    memory.fill(1);
    memory.unmap(1..2)?;
    memory.unmap(100..550)?;
    mover
        .to_device(memory.range())?
        .expect(149, &[(SkipReason::Unmapped, 451)])?;
    memory.check_pages(0..1, 1)?;
    memory.check_pages(2..100, 1)?;
    memory.check_pages(550..600, 1)?;
    // A range without any mapping is a range too.
    mover
        .to_device(memory.part(100..550))?
        .expect(0, &[(SkipReason::Unmapped, 450)])?;
    mover
        .to_system(memory.part(100..550))?
        .expect(0, &[(SkipReason::Unmapped, 450)])
}

/// Neighbours that differ in what is allowed, so that the kernel keeps them apart.
fn several_mappings() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(90)?;
    memory.fill(1);
    memory.protect(10..20, MprotectFlags::READ)?;
    memory.protect(30..40, MprotectFlags::READ | MprotectFlags::EXEC)?;
    memory.advise(50..60, Advice::LinuxDontDump)?;
    memory.advise(70..80, Advice::LinuxDontFork)?;
    mover.to_device(memory.range())?.expect(90, none())?;
    mover.expect_on_device(memory.range())?;
    memory.check(1)?;
    mover.to_device(memory.range())?.expect(90, none())?;
    mover.to_system(memory.range())?.expect(90, none())?;
    memory.check(1)
}

/// All mappings of a process: its program, heap, stack, and what the kernel has put there. The process goes on.
fn whole_process() -> Result<()> {
    const ROUNDS: usize = 3;
    let mut memory = Memory::anonymous(50)?;
    let (ready, moved) = (Gate::new()?, Gate::new()?);
    let child = fork(|| {
        let heap: Vec<String> = (0..2000).map(|number| format!("entry {number}")).collect();
        for seed in 0..ROUNDS as u64 {
            memory.fill(seed);
            ready.open()?;
            moved.wait()?;
            memory.check(seed)?;
            for (number, entry) in heap.iter().enumerate() {
                ensure!(
                    *entry == format!("entry {number}"),
                    "the heap has {entry} at {number}"
                );
            }
        }
        Ok(())
    })?;
    let mover = Mover::open()?.of(child.process()?);
    for _ in 0..ROUNDS {
        ready.wait()?;
        let mut sum = 0;
        for (range, permissions) in proc_self::mappings(child.id()?)? {
            // The page for old system calls lies outside of what a process can have.
            if range.end > 1 << 63 {
                continue;
            }
            let moved = mover
                .to_device(range.clone())
                .with_context(|| format!("{range:x?} {permissions}"))?;
            sum += moved.pages;
        }
        ensure!(sum >= memory.pages(), "only {sum} pages moved");
        mover.expect_on_device(memory.range())?;
        moved.open()?;
    }
    child.wait()
}
