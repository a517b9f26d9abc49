// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `unmap/*`: mappings that change while their pages are on the device.

use super::support::prelude::*;
use rustix::mm::{Advice, MprotectFlags, MremapFlags};
use std::ptr::NonNull;

pub(super) const CASES: &[Case] = &[
    Case::new("unmap/whole-anon-4k", whole),
    Case::new("unmap/halves-anon-4k", halves),
    Case::new("unmap/halves-anon-thp", halves_of_huge_pages),
    Case::new("unmap/replaced-anon-4k", replaced),
    Case::new("unmap/mremap-move-anon-4k", mremap_move),
    Case::new("unmap/mremap-move-anon-thp", mremap_move_huge),
    Case::new("unmap/mremap-grow-anon-4k", mremap_grow),
    Case::new("unmap/mremap-shrink-anon-4k", mremap_shrink),
    Case::new("unmap/mremap-dontunmap-anon-4k", mremap_dontunmap),
    Case::new("unmap/dontneed-anon-4k", dontneed),
    Case::new("unmap/free-anon-4k", free),
    Case::new("unmap/free-and-write-anon-4k", free_and_write),
    Case::new("unmap/mprotect-none-anon-4k", mprotect_none),
    Case::new("unmap/mprotect-readonly-anon-4k", mprotect_readonly),
    Case::new("unmap/cold-and-pageout-anon-4k", cold_and_pageout),
];

const PAGES: usize = 300;

fn on_device(mover: &Mover, mut memory: Memory) -> Result<Memory> {
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    Ok(memory)
}

/// Checks that exactly so many pages are on the device, of all processes together.
fn expect_resident(mover: &Mover, pages: usize) -> Result<()> {
    let resident = mover.resident()?;
    ensure!(
        resident == (pages * PAGE) as u64,
        "expected {pages} pages on the device, found {resident} bytes"
    );
    Ok(())
}

fn whole() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?)?;
    expect_resident(&mover, PAGES)?;
    memory.unmap(0..PAGES)?;
    expect_resident(&mover, 0)
}

fn part_goes(mover: &Mover, memory: Memory, gone: std::ops::Range<usize>) -> Result<()> {
    let pages = memory.pages();
    let memory = on_device(mover, memory)?;
    memory.unmap(gone.clone())?;
    mover.expect_residency(memory.range(), 0, pages - gone.len())?;
    memory.check_pages(0..gone.start, 1)?;
    memory.check_pages(gone.end..pages, 1)?;
    expect_resident(mover, 0)
}

fn halves() -> Result<()> {
    let mover = Mover::open()?;
    for gone in [0..150, 150..300, 75..225, 1..2, 299..300] {
        part_goes(&mover, Memory::single(PAGES)?, gone.clone())
            .with_context(|| format!("without {gone:?}"))?;
    }
    Ok(())
}

fn halves_of_huge_pages() -> Result<()> {
    let mover = Mover::open()?;
    for gone in [0..256, 256..512, 100..900, 512..1024] {
        part_goes(&mover, Memory::huge(2)?, gone.clone())
            .with_context(|| format!("without {gone:?}"))?;
    }
    Ok(())
}

/// A new mapping takes the place of the old one.
fn replaced() -> Result<()> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(PAGES)?)?;
    // SAFETY: The range belongs to `memory`, and there is no reference to its bytes.
    unsafe {
        mmap_anonymous(
            memory.at(100 * PAGE).as_ptr().cast(),
            100 * PAGE,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::FIXED,
        )
    }
    .context("cannot map over the memory")?;
    expect_resident(&mover, PAGES - 100)?;
    memory.check_zero(100..200)?;
    memory.fill_pages(100..200, 2);
    mover.to_device(memory.range())?;
    memory.check_pages(0..100, 1)?;
    memory.check_pages(100..200, 2)?;
    memory.check_pages(200..PAGES, 1)
}

/// `mremap` of the whole mapping.
fn remap(memory: Memory, pages: usize, flags: MremapFlags) -> Result<Memory> {
    let (start, length) = memory.into_raw();
    // SAFETY: The mapping's owner was just given up, so nothing else refers to it.
    let moved = unsafe { rustix::mm::mremap(start.as_ptr().cast(), length, pages * PAGE, flags) };
    let moved = NonNull::new(moved.context("mremap")?.cast()).context("a mapping at address 0")?;
    // SAFETY: `mremap` has just made this mapping.
    Ok(unsafe { Memory::adopt(moved, pages) })
}

/// `mremap` to the address of another mapping, which goes.
fn remap_to(memory: Memory, target: Memory, flags: MremapFlags) -> Result<Memory> {
    let (start, length) = memory.into_raw();
    let (target, _) = target.into_raw();
    // SAFETY: The owners of both mappings were just given up, so nothing else refers to them.
    let moved = unsafe {
        rustix::mm::mremap_fixed(
            start.as_ptr().cast(),
            length,
            length,
            MremapFlags::MAYMOVE | flags,
            target.as_ptr().cast(),
        )
    };
    let moved = NonNull::new(moved.context("mremap")?.cast()).context("a mapping at address 0")?;
    // SAFETY: `mremap` has just made this mapping.
    Ok(unsafe { Memory::adopt(moved, length / PAGE) })
}

fn mremap_move() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?)?;
    let before = memory.address();
    let memory = remap_to(memory, Memory::single(PAGES)?, MremapFlags::empty())?;
    ensure!(memory.address() != before, "the mapping did not move");
    mover.expect_on_device(memory.range())?;
    memory.check_pages(0..150, 1)?;
    mover.to_system(memory.range())?;
    memory.check(1)?;
    mover.all_to_device(memory.range())?;
    memory.check(1)
}

fn mremap_move_huge() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::huge(2)?)?;
    let target = Memory::single(1024)?;
    let memory = remap_to(memory, target, MremapFlags::empty())?;
    mover.expect_on_device(memory.range())?;
    memory.check(1)
}

fn mremap_grow() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?)?;
    let mut memory = remap(memory, 2 * PAGES, MremapFlags::MAYMOVE)?;
    mover.expect_residency(memory.range(), 0, PAGES)?;
    memory.check_pages(0..PAGES, 1)?;
    memory.check_zero(PAGES..2 * PAGES)?;
    memory.fill(2);
    mover.all_to_device(memory.range())?;
    memory.check(2)
}

fn mremap_shrink() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?)?;
    let memory = remap(memory, 100, MremapFlags::empty())?;
    expect_resident(&mover, 100)?;
    memory.check(1)
}

/// The pages go to the new mapping and the old one stays, empty.
fn mremap_dontunmap() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?)?;
    let (start, length) = memory.into_raw();
    // SAFETY: The owner was just given up. Both the old and the new mapping get an owner below.
    let moved = unsafe {
        rustix::mm::mremap(
            start.as_ptr().cast(),
            length,
            length,
            MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP,
        )
    };
    // SAFETY: With this flag, the old mapping stays.
    let old = unsafe { Memory::adopt(start, PAGES) };
    let moved = NonNull::new(moved.context("mremap")?.cast()).context("a mapping at address 0")?;
    // SAFETY: `mremap` has just made this mapping.
    let new = unsafe { Memory::adopt(moved, PAGES) };
    mover.expect_residency(old.range(), 0, 0)?;
    mover.expect_on_device(new.range())?;
    new.check(1)?;
    old.check_zero(0..PAGES)
}

fn dontneed() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(PAGES)?)?;
    memory.advise(50..250, Advice::LinuxDontNeed)?;
    expect_resident(&mover, PAGES - 200)?;
    memory.check_pages(0..50, 1)?;
    memory.check_zero(50..250)?;
    memory.check_pages(250..PAGES, 1)?;
    memory.fill(2);
    mover.all_to_device(memory.range())?;
    memory.check(2)
}

/// The kernel may take freed pages or not, each as a whole.
fn free() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?)?;
    memory.advise(50..250, Advice::LinuxFree)?;
    memory.check_pages(0..50, 1)?;
    for page in 50..250 {
        if memory.check_pages(page..page + 1, 1).is_err() {
            memory
                .check_zero(page..page + 1)
                .context("a freed page is neither old nor zero")?;
        }
    }
    memory.check_pages(250..PAGES, 1)
}

fn free_and_write() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(PAGES)?)?;
    memory.advise(0..PAGES, Advice::LinuxFree)?;
    memory.fill(2);
    mover.all_to_device(memory.range())?;
    memory.check(2)
}

fn mprotect_none() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(PAGES)?)?;
    memory.protect(0..PAGES, MprotectFlags::empty())?;
    expect_resident(&mover, PAGES)?;
    let child = fork(|| {
        memory.touch(5..6);
        Ok(())
    })?;
    child.wait_for_signal(rustix::process::Signal::SEGV)?;
    memory.protect(0..PAGES, MprotectFlags::READ | MprotectFlags::WRITE)?;
    memory.check(1)?;
    memory.fill(2);
    memory.check(2)
}

fn mprotect_readonly() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(PAGES)?)?;
    memory.protect(100..200, MprotectFlags::READ)?;
    mover.expect_on_device(memory.range())?;
    let child = fork(|| {
        memory.fill_pages(150..151, 2);
        Ok(())
    })?;
    child.wait_for_signal(rustix::process::Signal::SEGV)?;
    memory.check(1)?;
    mover.all_to_device(memory.range())?;
    memory.protect(100..200, MprotectFlags::READ | MprotectFlags::WRITE)?;
    memory.fill(2);
    memory.check(2)
}

/// Advice about reclaim does not reach pages on the device, and does no harm.
fn cold_and_pageout() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?)?;
    memory.advise(0..PAGES, Advice::LinuxCold)?;
    memory.advise(0..PAGES, Advice::LinuxPageOut)?;
    mover.expect_on_device(memory.range())?;
    memory.check(1)
}
