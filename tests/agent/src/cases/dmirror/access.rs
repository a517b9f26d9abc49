// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device reads and writes the memory of the process.

use crate::cases::support::mirror::{self, Done, Mirror, expect, pages_at};
use crate::cases::support::pattern;
use crate::cases::support::prelude::*;
use hmm_uapi::dmirror::{self, Command, PROT_DEVICE, PROT_NONE, PROT_PMD, PROT_WRITE};
use rustix::io::Errno;
use rustix::mm::{Advice, MprotectFlags};

pub(super) const CASES: &[Case] = &[
    Case::new("dmirror/read-once-mapped-anon-4k", read),
    Case::new("dmirror/write-is-seen-anon-4k", write),
    Case::new("dmirror/read-over-windows-anon-thp", over_windows),
    Case::new("dmirror/errors-of-faults", errors),
    Case::new("dmirror/read-unlocked-anon-4k", read_unlocked),
    Case::new("dmirror/mapped-anew-is-read-anew-anon-4k", mapped_anew),
    Case::new("dmirror/write-after-fork-anon-4k", after_fork),
    Case::new("dmirror/migrate-reads-on-device-anon-4k", migrate),
    Case::new("dmirror/migrate-what-cannot", migrate_nothing),
    Case::new("dmirror/migrate-without-huge-pages-anon-thp", without_huge),
    Case::new("dmirror/exclusive-until-touched-anon-4k", exclusive),
    Case::new(
        "dmirror/exclusive-is-not-device-memory-anon-4k",
        exclusive_or_own,
    ),
    Case::new("dmirror/exclusive-of-all-addresses-anon-4k", all_addresses),
    Case::new("dmirror/open-for-many-anon-4k", many_files),
];

const PAGES: usize = 300;

/// What the pattern of a seed is from page `first` on.
fn bytes_of(first: usize, pages: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; pages * PAGE];
    pattern::fill(&mut bytes, first, seed);
    bytes
}

fn expect_done(what: &str, done: Done, pages: usize, faults: u64) -> Result<()> {
    ensure!(
        done == Done { pages, faults },
        "{what}: expected {pages} pages and {faults} faults, found {done:?}"
    );
    Ok(())
}

/// One fault for the whole range, also of addresses that have no page yet, and none the next time.
fn read() -> Result<()> {
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let mut memory = Memory::single(2 * PAGES)?;
    memory.fill_pages(0..PAGES, 1);
    for faults in [1, 0] {
        let (bytes, done) = node.read(memory.range())?;
        expect_done("read", done, 2 * PAGES, faults)?;
        ensure!(
            bytes[..PAGES * PAGE] == bytes_of(0, PAGES, 1)
                && bytes[PAGES * PAGE..].iter().all(|&b| b == 0),
            "the device read something else"
        );
    }
    // What the CPU writes to a page that the device may read, the device reads.
    memory.fill_pages(7..8, 2);
    let (bytes, done) = node.read(memory.part(0..PAGES))?;
    ensure!(
        bytes[7 * PAGE..8 * PAGE] == bytes_of(7, 1, 2),
        "the device read what the page was before: {done:?}"
    );
    memory.check_pages(8..PAGES, 1)
}

fn write() -> Result<()> {
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let mut memory = Memory::single(PAGES + 2)?;
    memory.fill(1);
    for (seed, faults) in [(2, 1), (3, 0)] {
        let done = node.write(memory.part(1..PAGES + 1), &bytes_of(1, PAGES, seed))?;
        expect_done("write", done, PAGES, faults)?;
        memory.check_pages(1..PAGES + 1, seed)?;
    }
    memory.check_pages(0..1, 1)?;
    memory.check_pages(PAGES + 1..PAGES + 2, 1)?;
    let (_, done) = node.read(memory.part(1..PAGES + 1))?;
    expect_done("what can be written can be read", done, PAGES, 0)
}

/// Data passes through a window of the driver that is smaller.
fn over_windows() -> Result<()> {
    const PAGES: usize = 3 * HUGE / PAGE + 5;
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let mut memory = Memory::huge(4)?;
    memory.fill_pages(0..PAGES, 1);
    let (bytes, done) = node.read(memory.part(3..PAGES))?;
    expect_done("read", done, PAGES - 3, 1)?;
    ensure!(
        bytes == bytes_of(3, PAGES - 3, 1),
        "the device read something else"
    );
    let done = node.write(memory.part(3..PAGES), &bytes_of(3, PAGES - 3, 2))?;
    expect_done("write", done, PAGES - 3, u64::from(done.faults != 0))?;
    memory.check_pages(0..3, 1)?;
    memory.check_pages(3..PAGES, 2)
}

/// Errors of `hmm_range_fault()` are those of the call, and a read that fails at once leaves the buffer alone.
fn errors() -> Result<()> {
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let mut memory = Memory::single(6)?;
    memory.fill(1);
    memory.protect(0..1, MprotectFlags::empty())?;
    memory.protect(1..2, MprotectFlags::READ)?;
    memory.unmap(3..4)?;
    let mut bytes = vec![7; PAGE];
    let mut command = Command {
        address: memory.address() as u64,
        buffer: bytes.as_mut_ptr().expose_provenance() as u64,
        pages: 1,
        ..Command::default()
    };
    let found = node.raw(dmirror::READ_NR, &mut command);
    expect("read without access", found, Errno::FAULT)?;
    ensure!(
        std::hint::black_box(&bytes).iter().all(|&byte| byte == 7),
        "a read that failed wrote to the buffer"
    );
    let one = |page| memory.part(page..page + 1);
    let data = bytes_of(0, 1, 2);
    expect(
        "write without access",
        node.write(one(0), &data),
        Errno::FAULT,
    )?;
    expect(
        "write to what is read-only",
        node.write(one(1), &data),
        Errno::PERM,
    )?;
    expect("read of a hole", node.read(one(3)), Errno::FAULT)?;
    expect("write to a hole", node.write(one(3), &data), Errno::FAULT)?;
    expect(
        "read up to a hole",
        node.read(memory.part(1..4)),
        Errno::FAULT,
    )?;
    expect("exclusive in a hole", node.exclusive(one(3)), Errno::FAULT)?;
    let beyond = pages_at(1 << 47, 1);
    expect("beyond the addresses", node.read(beyond), Errno::FAULT)?;
    let window = pages_at(1 << 56, 1);
    expect("where windows are", node.read(window), Errno::FAULT)?;
    ensure!(
        node.read(one(1))?.0 == bytes_of(1, 1, 1),
        "the page that can be read"
    );
    let mut command = Command {
        address: one(4).start,
        buffer: 8,
        pages: 1,
        ..Command::default()
    };
    for number in [dmirror::READ_NR, dmirror::WRITE_NR] {
        expect("no buffer", node.raw(number, &mut command), Errno::FAULT)?;
    }
    memory.check_pages(1..3, 1)?;
    memory.check_pages(4..6, 1)
}

/// Where no fault has to wait for the process, it is as any other read.
fn read_unlocked() -> Result<()> {
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    for faults in [1, 0] {
        let (bytes, done) = node.read_unlocked(memory.range())?;
        expect_done("read", done, PAGES, faults)?;
        ensure!(
            bytes == bytes_of(0, PAGES, 1),
            "the device read something else"
        );
    }
    memory.protect(5..6, MprotectFlags::empty())?;
    let found = node.read_unlocked(memory.range());
    expect("a page without access", found, Errno::FAULT)?;
    memory.check_pages(6..PAGES, 1)
}

/// What was mapped at an address before is not what the device reads there.
fn mapped_anew() -> Result<()> {
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let mut memory = Memory::single(PAGES)?;
    for seed in 1..8 {
        memory.fill(seed);
        let (bytes, done) = node.read(memory.range())?;
        expect_done("read", done, PAGES, 1)?;
        ensure!(bytes == bytes_of(0, PAGES, seed), "round {seed}");
        memory.advise(0..PAGES, Advice::LinuxDontNeed)?;
    }
    let (bytes, _) = node.read(memory.range())?;
    ensure!(
        bytes.iter().all(|&byte| byte == 0),
        "the device read what was given up"
    );
    Ok(())
}

/// The device writes for the parent, not for the child that shares its pages.
fn after_fork() -> Result<()> {
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    // Mapped for writing.
    node.write(memory.range(), &bytes_of(0, PAGES, 2))?;
    let written = crate::cases::support::gate::Gate::new()?;
    let child = fork(|| {
        written.wait()?;
        memory.check(2)?;
        // The file still mirrors the parent, who is at the third pattern.
        ensure!(
            node.read(memory.range())?.0 == bytes_of(0, PAGES, 3),
            "the device read the child's memory"
        );
        let own = Mirror::open(0)?;
        let (bytes, _) = own.read(memory.range())?;
        ensure!(bytes == bytes_of(0, PAGES, 2), "not the child's memory");
        Ok(())
    })?;
    let done = node.write(memory.range(), &bytes_of(0, PAGES, 3))?;
    expect_done("write after fork", done, PAGES, 1)?;
    memory.check(3)?;
    written.open()?;
    child.wait()?;
    memory.check(3)
}

fn migrate() -> Result<()> {
    let _driver = mirror::driver()?;
    let (node, mover) = (Mirror::open(0)?, Mover::open()?);
    let mut memory = Memory::single(2 * PAGES)?;
    memory.fill_pages(0..PAGES, 1);
    let (bytes, done) = node.to_device(memory.range())?;
    expect_done("migrate", done, 2 * PAGES, 0)?;
    ensure!(
        bytes[..PAGES * PAGE] == bytes_of(0, PAGES, 1)
            && bytes[PAGES * PAGE..].iter().all(|&b| b == 0),
        "the device read something else"
    );
    mover.expect_on_device(memory.range())?;
    // The device works on its own pages: none goes back.
    let done = node.write(memory.range(), &bytes_of(0, 2 * PAGES, 2))?;
    expect_done("write", done, 2 * PAGES, 0)?;
    mover.expect_on_device(memory.range())?;
    memory.check(2)?;
    mover.expect_in_system(memory.range())?;
    let (bytes, done) = node.to_device(memory.range())?;
    expect_done("migrate again", done, 2 * PAGES, 0)?;
    ensure!(bytes == bytes_of(0, 2 * PAGES, 2), "after the CPU had it");
    memory.check(2)
}

fn migrate_nothing() -> Result<()> {
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let mut shared = Memory::shared(4)?;
    shared.fill(1);
    expect(
        "shared memory",
        node.to_device(shared.range()),
        Errno::NOENT,
    )?;
    shared.check(1)?;
    let mut memory = Memory::single(4)?;
    memory.fill(2);
    memory.protect(3..4, MprotectFlags::empty())?;
    expect("no access", node.to_device(memory.range()), Errno::INVAL)?;
    expect("no access", node.to_system(memory.range()), Errno::INVAL)?;
    memory.unmap(1..2)?;
    expect("a hole", node.to_device(memory.part(0..3)), Errno::INVAL)?;
    memory.check_pages(0..1, 2)?;
    memory.check_pages(2..3, 2)
}

/// Where no huge page is to be had, single ones do, for huge pages and for huge holes, and for the next call only.
fn without_huge() -> Result<()> {
    const PAGES: usize = HUGE / PAGE;
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let on_device = |memory: &Memory, size: u8| {
        let found = node.snapshot(memory.range())?;
        let expected = PROT_DEVICE | PROT_WRITE | size;
        ensure!(
            found.iter().all(|&byte| byte == expected),
            "expected {expected:#x}: {found:x?}"
        );
        Ok(())
    };
    let mut memory = Memory::huge(1)?;
    memory.fill(1);
    if node.snapshot(memory.part(0..1))? != [PROT_WRITE | PROT_PMD] {
        return Err(skip("the kernel had no huge page"));
    }
    node.refuse_huge()?;
    let (bytes, done) = node.to_device(memory.range())?;
    expect_done("without a huge page", done, PAGES, 0)?;
    ensure!(
        bytes == bytes_of(0, PAGES, 1),
        "the device read something else"
    );
    on_device(&memory, 0)?;
    memory.check(1)?;

    let mut memory = Memory::huge(1)?;
    memory.fill(2);
    node.to_device(memory.range())?;
    on_device(&memory, PROT_PMD)?;
    node.refuse_huge()?;
    node.to_system(memory.range())?;
    let found = node.snapshot(memory.range())?;
    ensure!(
        found.iter().all(|&byte| byte == PROT_WRITE),
        "in single pages: {found:x?}"
    );
    memory.check(2)?;

    for touched in [false, true] {
        let mut memory = Memory::huge(1)?;
        if touched {
            // The huge page of zeros.
            memory.touch(0..1);
        }
        node.refuse_huge()?;
        let (bytes, done) = node.to_device(memory.range())?;
        expect_done("a huge hole", done, PAGES, 0)?;
        ensure!(bytes.iter().all(|&byte| byte == 0), "a hole with contents");
        on_device(&memory, 0)?;
        memory.check_zero(0..PAGES / 2)?;
        memory.fill(3);
        memory.check(3)?;
    }
    Ok(())
}

fn exclusive() -> Result<()> {
    const PAGES: usize = 32;
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    node.check_exclusive(memory.range())?;
    let (bytes, done) = node.exclusive(memory.range())?;
    expect_done("exclusive", done, PAGES, 0)?;
    ensure!(
        bytes == bytes_of(0, PAGES, 1),
        "the device read something else"
    );
    expect("all", node.check_exclusive(memory.range()), Errno::PERM)?;
    // The page tables have no page there.
    ensure!(
        node.snapshot(memory.range())? == [PROT_NONE; PAGES],
        "the CPU still has a page"
    );
    memory.fill_pages(0..PAGES - 1, 2);
    expect("one", node.check_exclusive(memory.range()), Errno::PERM)?;
    node.check_exclusive(memory.part(0..PAGES - 1))?;
    let done = node.write(memory.range(), &bytes_of(0, PAGES, 3))?;
    ensure!(done.pages == PAGES, "{done:?}");
    memory.check(3)?;
    node.check_exclusive(memory.range())?;
    // What the CPU may not write, the device may not either, exclusive or not.
    node.exclusive(memory.range())?;
    memory.protect(0..PAGES, MprotectFlags::READ)?;
    expect(
        "write to what became read-only",
        node.write(memory.range(), &bytes_of(0, PAGES, 4)),
        Errno::PERM,
    )?;
    memory.check(3)
}

/// The device may use its own memory atomically, which is nothing that it keeps from the CPUs.
fn exclusive_or_own() -> Result<()> {
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let mut memory = Memory::single(8)?;
    memory.fill(1);
    node.to_device(memory.part(0..4))?;
    node.check_exclusive(memory.range())?;
    node.exclusive(memory.part(4..8))?;
    node.check_exclusive(memory.part(0..4))?;
    expect(
        "the rest",
        node.check_exclusive(memory.range()),
        Errno::PERM,
    )?;
    memory.check(1)?;
    node.check_exclusive(memory.range())?;
    Ok(())
}

/// The question is answered for all addresses of a process at once, with much mapped here and there.
fn all_addresses() -> Result<()> {
    const BLOCKS: usize = 64;
    // The last page of a process with page tables of four levels.
    let all = PAGE as u64..(1 << 47) - PAGE as u64;
    let _driver = mirror::driver()?;
    let node = Mirror::open(0)?;
    let mut memory = Memory::single(BLOCKS * HUGE / PAGE)?;
    // Every other page of a block, so that each is a mapping of its own.
    for page in (0..memory.pages()).step_by(2) {
        memory.fill_pages(page..page + 1, 1);
    }
    node.read(memory.range())?;
    node.check_exclusive(all.clone())?;
    node.exclusive(memory.part(0..1))?;
    expect("one page", node.check_exclusive(all.clone()), Errno::PERM)?;
    memory.check_pages(0..1, 1)?;
    node.check_exclusive(all)?;
    Ok(())
}

/// Each open file has page tables of its own on the device.
fn many_files() -> Result<()> {
    let _driver = mirror::driver()?;
    let mut memory = Memory::single(4)?;
    memory.fill(1);
    let mut files = Vec::new();
    for _ in 0..40 {
        let node = Mirror::open(0)?;
        let (bytes, done) = node.read(memory.range())?;
        expect_done("the first read of a file", done, 4, 1)?;
        ensure!(bytes == bytes_of(0, 4, 1), "the device read something else");
        files.push(node);
    }
    files[39].write(memory.range(), &bytes_of(0, 4, 2))?;
    for node in &files {
        ensure!(
            node.read(memory.range())?.0 == bytes_of(0, 4, 2),
            "an old translation"
        );
    }
    drop(files);
    memory.check(2)
}
