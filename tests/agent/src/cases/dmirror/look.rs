// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! SNAPSHOT, mappings of the node, RELEASE.

use crate::cases::support::mirror::{self, Mirror, expect};
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use hmm_uapi::dmirror::{
    PROT_DEVICE, PROT_ERROR, PROT_NONE, PROT_PMD, PROT_READ, PROT_WRITE, PROT_ZERO,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags};

pub(super) const CASES: &[Case] = &[
    Case::new("dmirror/snapshot-every-kind", every_kind),
    Case::new("dmirror/snapshot-anon-thp", huge),
    Case::new("dmirror/snapshot-many-windows-anon-4k", many_windows),
    Case::new("dmirror/map-the-node", map_the_node),
    Case::new("dmirror/release-evicts-all-anon-4k", release),
];

fn every_kind() -> Result<()> {
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let first = Mover::open()?;
    let mut memory = Memory::single(9)?;
    memory.fill_pages(4..9, 1);
    memory.touch(2..4);
    memory.protect(0..1, MprotectFlags::empty())?;
    memory.unmap(1..2)?;
    memory.protect(4..5, MprotectFlags::READ)?;
    first.all_to_device(memory.part(6..7))?;
    let mut expected = vec![
        PROT_ERROR,
        PROT_ERROR,
        PROT_ZERO | PROT_READ,
        PROT_ZERO | PROT_READ,
        PROT_READ,
        PROT_WRITE,
        PROT_DEVICE | PROT_WRITE,
        PROT_WRITE,
        PROT_WRITE,
    ];
    if let Ok(second) = nodes::second() {
        // A device must not learn of the other's pages.
        Mover::on(&second)?.all_to_device(memory.part(7..8))?;
        expected[7] = PROT_NONE;
    }
    memory.advise(8..9, rustix::mm::Advice::LinuxDontNeed)?;
    expected[8] = PROT_NONE;
    let found = node.snapshot(memory.range())?;
    ensure!(found == expected, "{found:x?}, expected {expected:x?}");
    memory.check_pages(5..8, 1)
}

/// The pages of a huge page are told to be of one, on either side, and also where the range begins within it.
fn huge() -> Result<()> {
    const PAGES: usize = HUGE / PAGE;
    let _driver = mirror::driver()?;
    let (node, mover) = (Mirror::open(0)?, Mover::open()?);
    let mut memory = Memory::huge(1)?;
    memory.fill(1);
    let expect_all = |kind: u8| {
        for range in [0..PAGES, 5..PAGES, 100..300] {
            let found = node.snapshot(memory.part(range))?;
            ensure!(
                found.iter().all(|&byte| byte == kind),
                "expected {kind:#x}: {found:x?}"
            );
        }
        Ok(())
    };
    if node.snapshot(memory.part(0..1))? != [PROT_WRITE | PROT_PMD] {
        return Err(skip("the kernel had no huge page"));
    }
    expect_all(PROT_WRITE | PROT_PMD)?;
    mover.all_to_device(memory.range())?;
    expect_all(PROT_DEVICE | PROT_WRITE | PROT_PMD)?;
    memory.protect(0..PAGES, MprotectFlags::READ)?;
    expect_all(PROT_DEVICE | PROT_READ | PROT_PMD)?;
    memory.check(1)
}

fn many_windows() -> Result<()> {
    const PAGES: usize = 1500;
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let mut memory = Memory::single(PAGES)?;
    for page in (0..PAGES).step_by(3) {
        memory.fill_pages(page..page + 1, 1);
    }
    let found = node.snapshot(memory.range())?;
    for (page, byte) in found.into_iter().enumerate() {
        let expected = if page % 3 == 0 { PROT_WRITE } else { PROT_NONE };
        ensure!(byte == expected, "page {page}: {byte:#x}");
    }
    Ok(())
}

/// Each page of a mapped node is zero, belongs to the mapping alone, and cannot go to a device.
fn map_the_node() -> Result<()> {
    const PAGES: usize = 5;
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(mirror::path(0))?;
    let map = |flags| Memory::file(std::os::fd::AsFd::as_fd(&file), PAGES, flags);
    let mut memory = map(MapFlags::SHARED)?;
    memory.check_zero(0..PAGES)?;
    memory.fill(1);
    let mut copied = map(MapFlags::PRIVATE)?;
    copied.check_zero(0..PAGES)?;
    let found = node.snapshot(copied.range())?;
    ensure!(found == [PROT_READ; PAGES], "{found:x?}");
    copied.fill(2);
    memory.check(1)?;
    copied.check(2)?;
    expect(
        "a mapping of the node to system memory",
        node.to_system(memory.range()),
        Errno::INVAL,
    )
}

/// RELEASE brings the pages of every process back, and those of the other device stay.
fn release() -> Result<()> {
    const PAGES: usize = 700;
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let first = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    first.all_to_device(memory.range())?;
    let mut elsewhere = Memory::single(10)?;
    elsewhere.fill(2);
    let second = match nodes::second() {
        Ok(node) => Some(Mover::on(&node)?),
        Err(_) => None,
    };
    if let Some(second) = &second {
        second.all_to_device(elsewhere.range())?;
    }
    fork(|| Ok(node.release(memory.part(0..1))?))?.wait()?;
    first.expect_in_system(memory.range())?;
    ensure!(first.resident()? == 0, "pages are left on the device");
    if let Some(second) = &second {
        second.expect_on_device(elsewhere.range())?;
    }
    memory.check(1)?;
    elsewhere.check(2)
}
