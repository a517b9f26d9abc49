// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The nodes that speak the interface of the kernel's `test_hmm`.

use crate::cases::support::failing::{Failing, Steps};
use crate::cases::support::ioctl::RawNode;
use crate::cases::support::mirror::{self, Mirror};
use crate::cases::support::pattern;
use crate::cases::support::prelude::*;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags};

pub(super) const CASES: &[Case] = &[
    Case::new("nomem/dmirror-open", open).within(120),
    Case::new("nomem/dmirror-read-anon-4k", read).within(120),
    Case::new("nomem/dmirror-write-anon-4k", write).within(120),
    Case::new("nomem/dmirror-migrate-anon-4k", migrate).within(120),
    Case::new("nomem/dmirror-exclusive-anon-4k", exclusive).within(120),
    Case::new("nomem/dmirror-snapshot-anon-4k", snapshot),
    Case::new("nomem/dmirror-map", map),
];

const PAGES: usize = 20;

fn bytes_of(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; PAGES * PAGE];
    pattern::fill(&mut bytes, 0, seed);
    bytes
}

/// Checks that a call was done, or why not: no memory for it, for a page that was to be faulted in or for one that was to
/// migrate.
fn done_or_without<T>(result: Result<T, Errno>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOMEM | Errno::FAULT | Errno::NOENT | Errno::BUSY) => Ok(None),
        Err(errno) => bail!("expected success or a lack of memory, found {errno:?}"),
    }
}

fn filled(seed: u64) -> Result<Memory> {
    let mut memory = Memory::single(PAGES)?;
    memory.fill(seed);
    Ok(memory)
}

fn open() -> Result<()> {
    let _driver = mirror::driver()?;
    let memory = filled(1)?;
    let path = mirror::path(0);
    Failing::new()?.sweep(
        Steps::Every,
        || Ok(()),
        |()| RawNode::open(&path).is_ok(),
        |_| {
            let (bytes, _) = Mirror::open(0)?.read(memory.range())?;
            ensure!(bytes == bytes_of(1), "the device read something else");
            Ok(())
        },
    )
}

fn read() -> Result<()> {
    let _driver = mirror::driver()?;
    let memory = filled(1)?;
    Failing::new()?.sweep(
        Steps::Widening,
        || Mirror::open(0),
        |node| {
            let result = node.read(memory.range());
            (node, result)
        },
        |(node, result)| {
            if let Some((bytes, _)) = done_or_without(result)? {
                ensure!(bytes == bytes_of(1), "the device read something else");
            }
            let (bytes, _) = node.read(memory.range())?;
            ensure!(bytes == bytes_of(1), "the next read");
            Ok(())
        },
    )?;
    memory.check(1)
}

fn write() -> Result<()> {
    let _driver = mirror::driver()?;
    let memory = Memory::single(PAGES)?;
    let data = bytes_of(2);
    let node = Mirror::open(0)?;
    Failing::new()?.sweep(
        Steps::Widening,
        || {
            memory.advise(0..PAGES, Advice::LinuxDontNeed)?;
            memory.touch(0..PAGES / 2);
            Ok(())
        },
        |()| node.write(memory.range(), &data),
        |result| {
            done_or_without(result)?;
            node.write(memory.range(), &data)?;
            Ok(())
        },
    )?;
    memory.check(2)
}

fn migrate() -> Result<()> {
    let _driver = mirror::driver()?;
    let memory = filled(1)?;
    let node = Mirror::open(0)?;
    Failing::new()?.sweep(
        Steps::Widening,
        || Ok(node.to_system(memory.range()).map(drop)?),
        |()| node.to_device(memory.range()),
        |result| {
            if let Some((bytes, _)) = done_or_without(result)? {
                ensure!(bytes == bytes_of(1), "the device read something else");
            }
            let (bytes, _) = node.to_device(memory.range())?;
            ensure!(bytes == bytes_of(1), "the next migration");
            Ok(())
        },
    )?;
    memory.check(1)
}

fn exclusive() -> Result<()> {
    let _driver = mirror::driver()?;
    let memory = filled(1)?;
    let node = Mirror::open(0)?;
    Failing::new()?.sweep(
        Steps::Widening,
        || memory.check(1),
        |()| node.exclusive(memory.range()),
        |result| {
            if let Some((bytes, _)) = done_or_without(result)? {
                ensure!(bytes == bytes_of(1), "the device read something else");
            }
            memory.check(1)
        },
    )
}

fn snapshot() -> Result<()> {
    let _driver = mirror::driver()?;
    let memory = filled(1)?;
    let node = Mirror::open(0)?;
    let expected = vec![hmm_uapi::dmirror::PROT_WRITE; PAGES];
    Failing::new()?.sweep(
        Steps::Every,
        || Ok(()),
        |()| node.snapshot(memory.range()),
        |result| {
            if let Some(bytes) = done_or_without(result)? {
                ensure!(bytes == expected, "{bytes:x?}");
            }
            let bytes = node.snapshot(memory.range())?;
            ensure!(bytes == expected, "the next time: {bytes:x?}");
            Ok(())
        },
    )
}

fn map() -> Result<()> {
    let _driver = mirror::driver()?;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(mirror::path(0))?;
    let map = || Memory::file(std::os::fd::AsFd::as_fd(&file), PAGES, MapFlags::SHARED);
    Failing::new()?.sweep(
        Steps::Every,
        || Ok(()),
        |()| map(),
        |result| {
            if let Ok(memory) = result {
                memory.check_zero(0..PAGES)?;
            }
            map()?.check_zero(0..PAGES)
        },
    )
}
