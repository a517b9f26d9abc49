// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages that KSM merges.

use super::super::support::pinned::PipePin;
use super::super::support::prelude::*;
use super::super::support::swap::Swap;
use super::super::support::{proc_self, setting};
use super::swapped;
use rustix::mm::Advice;
use std::fs;
use std::time::{Duration, Instant};

/// How long KSM may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Pages of a mapping that the kernel may merge stay where they are.
pub(super) fn merging() -> Result<()> {
    let _settings = setting::ksm(10_000, 1)?;
    let mut memory = Memory::single(super::PAGES)?;
    memory.fill(1);
    // Every page has a twin.
    let half = memory.length() / 2;
    let (first, second) = memory.bytes_mut().split_at_mut(half);
    second.copy_from_slice(first);
    memory.advise(0..super::PAGES, Advice::LinuxMergeable)?;
    let before = memory.bytes().to_vec();
    let mover = Mover::open()?;
    let end = Instant::now() + super::TIME;
    while Instant::now() < end {
        // While pages of the mapping are being merged, none of it may be taken.
        mover
            .call(memory.range(), Direction::ToDevice, MigrateFlags::default())?
            .expect(0, &[(SkipReason::Ksm, super::PAGES)])?;
        ensure!(
            memory.bytes() == before,
            "the memory has other bytes than before"
        );
    }
    memory.advise(0..super::PAGES, Advice::LinuxUnmergeable)?;
    mover.all_to_device(memory.range())?;
    ensure!(
        memory.bytes() == before,
        "the memory has other bytes than before"
    );
    Ok(())
}

/// A merged page that comes back from swap is mapped by whoever had it before, also where nothing may be merged any
/// more, and there the kernel does not find it again once it is told to forget it.
pub(super) fn from_swap() -> Result<()> {
    /// As many as a pipe holds.
    const PAGES: usize = 16;
    let _settings = setting::ksm(10_000, 1)?;
    let _swap = Swap::new(1 << 10)?;
    let shared_before = shared()?;
    let mut memory = Memory::single(2 * PAGES)?;
    memory.fill_pages(0..PAGES, 1);
    let (pages, twins) = memory.bytes_mut().split_at_mut(PAGES * PAGE);
    twins.copy_from_slice(pages);
    memory.advise(0..2 * PAGES, Advice::LinuxMergeable)?;
    wait("merge the pages", || Ok(merged(&memory)? == 2 * PAGES))?;
    memory.unmap(PAGES..2 * PAGES)?;

    // A reference keeps a page in memory, though unmapped, while it is written to swap.
    let pin = PipePin::new(&memory, 0..PAGES)?;
    memory.advise(0..PAGES, Advice::LinuxPageOut)?;
    ensure!(
        swapped(&memory)? == (PAGES * PAGE) as u64,
        "{} bytes went to swap",
        swapped(&memory)?
    );
    memory.advise(0..PAGES, Advice::LinuxUnmergeable)?;
    drop(pin);
    wait("forget the pages", || Ok(shared()? <= shared_before))?;
    memory.touch(0..PAGES);
    ensure!(
        merged(&memory)? == PAGES,
        "{} merged pages came back from swap",
        merged(&memory)?
    );

    let mover = Mover::open()?;
    mover
        .call(
            memory.part(0..PAGES),
            Direction::ToDevice,
            MigrateFlags::default(),
        )?
        .expect(0, &[(SkipReason::Ksm, PAGES)])?;
    memory.check_pages(0..PAGES, 1)?;
    // The first write gives the process a page of its own.
    memory.fill_pages(0..PAGES, 2);
    mover.all_to_device(memory.part(0..PAGES))?;
    memory.check_pages(0..PAGES, 2)
}

/// A merged page that only one mapping has left, which gives it up, is one that the kernel may take. It stays one when
/// KSM merges the page of another mapping with it, which has given up nothing, and loses its contents.
pub(super) fn given_up() -> Result<()> {
    const PAGES: usize = 64;
    let _settings = setting::ksm(10_000, 1)?;
    let mut memory = Memory::single(3 * PAGES)?;
    memory.fill_pages(PAGES..2 * PAGES, 1);
    let pages = memory.page_bytes(PAGES..2 * PAGES).to_vec();
    memory.bytes_mut()[2 * PAGES * PAGE..].copy_from_slice(&pages);
    memory.advise(0..3 * PAGES, Advice::LinuxMergeable)?;
    wait("merge the pages", || Ok(merged(&memory)? == 2 * PAGES))?;
    memory.unmap(2 * PAGES..3 * PAGES)?;
    memory.advise(PAGES..2 * PAGES, Advice::LinuxFree)?;

    memory.bytes_mut()[..PAGES * PAGE].copy_from_slice(&pages);
    wait("merge others with them", || {
        Ok(merged(&memory)? == 2 * PAGES)
    })?;
    memory.unmap(PAGES..2 * PAGES)?;
    memory.advise(0..PAGES, Advice::LinuxPageOut)?;
    // The kernel's lists may hold some at the moment.
    let mut lost = 0;
    for (page, before) in pages.chunks(PAGE).enumerate() {
        if memory.page_bytes(page..page + 1) != before {
            memory.check_zero(page..page + 1)?;
            lost += 1;
        }
    }
    ensure!(
        lost > 0,
        "the kernel does not lose such pages any more, so the load may do that again"
    );
    Ok(())
}

/// How many pages of the memory are merged ones.
fn merged(memory: &Memory) -> Result<usize> {
    Ok(proc_self::smaps(memory.range().start, "KSM")? as usize / PAGE)
}

/// How many merged pages the kernel knows.
fn shared() -> Result<usize> {
    const FILE: &str = "/sys/kernel/mm/ksm/pages_shared";
    let text = fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{FILE} has {text:?}"))
}

fn wait(what: &str, mut is_done: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !is_done()? {
        ensure!(Instant::now() < end, "KSM did not {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
