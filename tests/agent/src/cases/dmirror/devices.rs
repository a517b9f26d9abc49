// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two devices and the memory of one process. A page is on one of them at a time, and a device that wants a page of the
//! other gets it from system memory.

use crate::cases::support::depth;
use crate::cases::support::mirror::{self, Mirror, expect};
use crate::cases::support::nodes;
use crate::cases::support::pattern;
use crate::cases::support::prelude::*;
use rustix::io::Errno;
use rustix::mm::Advice;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const CASES: &[Case] = &[
    Case::new("dmirror/to-system-takes-its-own-anon-4k", to_system),
    Case::new("dmirror/foreign-page-goes-home-anon-4k", foreign_page),
    Case::new("dmirror/foreign-page-goes-home-anon-thp", foreign_huge_page),
    Case::new("dmirror/devices-take-turns-anon-4k", take_turns),
    Case::new("dmirror/both-devices-and-cpu-at-once-anon-4k", at_once).within(120),
    Case::new("dmirror/access-against-unmap-anon-4k", against_unmap).within(120),
];

struct Devices {
    movers: [Mover; 2],
    nodes: [Mirror; 2],
}

fn devices() -> Result<Devices> {
    Ok(Devices {
        movers: [Mover::open()?, Mover::on(&nodes::second()?)?],
        nodes: [Mirror::open(0)?, Mirror::open(1)?],
    })
}

fn bytes_of(pages: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; pages * PAGE];
    pattern::fill(&mut bytes, 0, seed);
    bytes
}

/// A device brings its own pages back, and leaves those of the other where they are.
fn to_system() -> Result<()> {
    const PAGES: usize = 64;
    let _driver = mirror::driver()?;
    let Devices { movers, nodes } = devices()?;
    let mut memory = Memory::single(2 * PAGES)?;
    memory.fill(1);
    movers[0].all_to_device(memory.part(0..PAGES))?;
    movers[1].all_to_device(memory.part(PAGES..2 * PAGES))?;
    let done = nodes[1].to_system(memory.range())?;
    ensure!(
        done.pages == PAGES,
        "{} pages went back, of {PAGES}",
        done.pages
    );
    movers[0].expect_on_device(memory.part(0..PAGES))?;
    movers[0].expect_in_system(memory.part(PAGES..2 * PAGES))?;
    memory.check(1)
}

/// A page on one device that the other reads or writes is in system memory then, and one that the other is told to
/// take stays where it is.
fn foreign_page() -> Result<()> {
    const PAGES: usize = 100;
    let _driver = mirror::driver()?;
    let Devices { movers, nodes } = devices()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    nodes[1].to_device(memory.range())?;
    let foreign = nodes[0].to_device(memory.range());
    expect("pages of the other device", foreign, Errno::NOENT)?;
    movers[1].expect_on_device(memory.range())?;

    let (bytes, done) = nodes[0].read(memory.range())?;
    ensure!(done.faults == 1, "{done:?}");
    ensure!(
        bytes == bytes_of(PAGES, 1),
        "the device read something else"
    );
    movers[1].expect_in_system(memory.range())?;

    nodes[0].to_device(memory.range())?;
    let done = nodes[1].write(memory.range(), &bytes_of(PAGES, 2))?;
    ensure!(done.faults == 1, "{done:?}");
    movers[0].expect_in_system(memory.range())?;
    // Now both may access it where it is.
    let (bytes, _) = nodes[0].read(memory.range())?;
    ensure!(
        bytes == bytes_of(PAGES, 2),
        "the device read something else"
    );
    let done = nodes[1].write(memory.range(), &bytes_of(PAGES, 3))?;
    ensure!(done.faults == 0, "{done:?}");
    memory.check(3)
}

fn foreign_huge_page() -> Result<()> {
    const PAGES: usize = 2 * HUGE / PAGE;
    let _driver = mirror::driver()?;
    let Devices { movers, nodes } = devices()?;
    let mut memory = Memory::huge(2)?;
    memory.fill(1);
    for round in 0..4 {
        let (owner, other) = (&nodes[round % 2], &nodes[1 - round % 2]);
        owner.to_device(memory.range())?;
        let seed = round as u64 + 2;
        let done = other.write(memory.range(), &bytes_of(PAGES, seed))?;
        ensure!(done.faults == 1, "{done:?}");
        movers[0].expect_in_system(memory.range())?;
        memory.check(seed)?;
    }
    Ok(())
}

/// Each device in turn takes all pages and writes them, and the CPU only looks at the end.
fn take_turns() -> Result<()> {
    const PAGES: usize = 200;
    let _driver = mirror::driver()?;
    let Devices { nodes, .. } = devices()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    let rounds = depth::rounds(20)? as usize;
    for round in 0..rounds {
        let (node, other) = (&nodes[round % 2], &nodes[1 - round % 2]);
        // The pages of the other device must go home first.
        other.to_system(memory.range())?;
        let seed = round as u64 + 1;
        let (bytes, _) = node.to_device(memory.range())?;
        ensure!(bytes == bytes_of(PAGES, seed), "round {round}");
        let done = node.write(memory.range(), &bytes_of(PAGES, seed + 1))?;
        ensure!(done.faults == 0, "{done:?}");
    }
    memory.check(rounds as u64 + 1)
}

/// Two devices and a CPU write parts of the same pages, which go here and there meanwhile. Every byte is the last that its
/// writer wrote.
fn at_once() -> Result<()> {
    const PAGES: usize = 96;
    let _driver = mirror::driver()?;
    let Devices { movers, nodes } = devices()?;
    let mut memory = Memory::single(3 * PAGES)?;
    memory.fill(0);
    let part = |index: usize| memory.part(index * PAGES..(index + 1) * PAGES);
    let (rounds, stop) = (depth::rounds(40)?, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let range = part(index);
            writers.push(scope.spawn(move || {
                for round in 0..rounds {
                    let seed = u64::from(round) + 1;
                    let data = bytes_of(PAGES, seed);
                    patiently(|| node.write(range.clone(), &data))?;
                    let (bytes, _) = patiently(|| node.read(range.clone()))?;
                    ensure!(
                        bytes == bytes_of(PAGES, seed),
                        "device {index}, round {round}"
                    );
                }
                Ok(())
            }));
        }
        let words = scope.spawn(|| {
            for round in 0..rounds {
                for word in (2 * PAGES * PAGE..3 * PAGES * PAGE).step_by(512) {
                    let before = memory.word(word).swap(round + 1, Ordering::Relaxed);
                    ensure!(
                        round == 0 || before == round,
                        "the CPU's word {word}: {before}"
                    );
                }
            }
            Ok(())
        });
        let mover = scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                let direction = [Direction::ToDevice, Direction::ToSystem][round / 2 % 2];
                movers[round % 2].call(memory.range(), direction, MigrateFlags::default())?;
                round += 1;
            }
            Ok(())
        });
        let mut results = Vec::new();
        for writer in writers.into_iter().chain([words]) {
            results.push(writer.join());
        }
        stop.store(true, Ordering::Relaxed);
        results.push(mover.join());
        for result in results {
            result.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    for index in 0..2 {
        let bytes = memory.page_bytes(index * PAGES..(index + 1) * PAGES);
        ensure!(
            bytes == bytes_of(PAGES, u64::from(rounds)),
            "what device {index} wrote last"
        );
    }
    Ok(())
}

/// Makes a call again whose range has changed for a whole second.
fn patiently<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::BUSY) => {}
            result => return result,
        }
    }
}

/// Pages are taken away from under the devices. What a device reads is what was there at some time.
fn against_unmap() -> Result<()> {
    const PAGES: usize = 64;
    let _driver = mirror::driver()?;
    let Devices { nodes, .. } = devices()?;
    let memory = Memory::single(PAGES)?;
    let (rounds, stop) = (depth::rounds(200)? as usize, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let readers: Vec<_> = nodes
            .iter()
            .map(|node| {
                scope.spawn(|| {
                    let mut reads = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        let (bytes, _) = patiently(|| node.read(memory.range()))?;
                        for (page, bytes) in bytes.chunks_exact(PAGE).enumerate() {
                            let first =
                                u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                            ensure!(
                                first == 0 || first as usize == page + 1,
                                "page {page}: {first:#x}"
                            );
                        }
                        reads += 1;
                    }
                    Ok(reads)
                })
            })
            .collect();
        let changed: Result<()> = (0..rounds).try_for_each(|round| {
            for page in 0..PAGES {
                memory
                    .word(page * PAGE)
                    .store(page as u32 + 1, Ordering::Relaxed);
            }
            let first = round % PAGES;
            memory.advise(first..PAGES, Advice::LinuxDontNeed)
        });
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            let reads = reader
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            ensure!(reads > 0, "a device has read nothing");
        }
        changed
    })
}
