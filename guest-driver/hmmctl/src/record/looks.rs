// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Looks at where the memory of the program's processes is.

use crate::run::{Tree, populated};
use anyhow::Context;
use hmm_uapi::client::{Device, PageRun, Place, Process};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PAGE_BYTES: u64 = 4096;
/// Bytes of a block, which is aligned to them: a huge page.
const BLOCK_BYTES: u64 = 2 << 20;
/// The kernel takes longer marks than this in any version.
const MARK_BYTES: usize = 900;

/// Pages of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Block {
    /// On the device, or swapped out until the device was asked.
    away: u64,
    system: u64,
    device: u64,
    is_huge: bool,
}

/// What the processes of a program have where.
#[derive(Debug)]
pub(super) struct Looks<'a> {
    device: &'a Device,
    marker: File,
    tree: Tree,
    /// By process and address, as last told.
    known: BTreeMap<i32, BTreeMap<u64, Block>>,
}

impl<'a> Looks<'a> {
    /// Looks at the program with this process id and its descendants, and tells of it in the trace.
    pub(super) fn new(device: &'a Device, marker: File, program: i32) -> Self {
        Self {
            device,
            marker,
            tree: Tree::new(program),
            known: BTreeMap::new(),
        }
    }

    /// Looks again and again until `is_over`. Looks take half of the time at most.
    pub(super) fn until(&mut self, is_over: &AtomicBool, interval: Duration) -> anyhow::Result<()> {
        while !is_over.load(Ordering::Acquire) {
            let begin = Instant::now();
            self.look()?;
            let pause = interval.max(begin.elapsed());
            let due = Instant::now() + pause;
            while !is_over.load(Ordering::Acquire)
                && let Some(rest) = due.checked_duration_since(Instant::now())
            {
                thread::park_timeout(rest);
            }
        }
        Ok(())
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let alive = self.tree.update().context("cannot read /proc")?;
        self.known.retain(|pid, _| alive.contains(pid));
        for pid in alive {
            let runs = populated(pid)?;
            let known = self.known.entry(pid).or_default();
            let changes = changes(known, &runs, |address| residency(self.device, pid, address));
            self.tell(pid, &changes)?;
        }
        Ok(())
    }

    fn tell(&mut self, pid: i32, changes: &[(u64, Block)]) -> anyhow::Result<()> {
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let name: String = (String::from_utf8_lossy(&name).trim_end().chars())
            .map(|letter| match letter {
                letter if letter.is_control() || letter.is_whitespace() => '_',
                letter => letter,
            })
            .collect();
        self.mark(&format!("hmm_look: pid={pid} name={name}"))?;
        for part in marks(pid, changes) {
            self.mark(&part)?;
        }
        Ok(())
    }

    fn mark(&mut self, text: &str) -> anyhow::Result<()> {
        (self.marker.write_all(text.as_bytes())).context("cannot write a mark into the trace")
    }
}

/// How many pages of a block are on the device; 0 if the process has ended or the device has gone.
fn residency(device: &Device, pid: i32, address: u64) -> u64 {
    Process::from_id(pid)
        .and_then(|process| {
            (device.residency(process, address..address.saturating_add(BLOCK_BYTES))).ok()
        })
        .map_or(0, |counts| counts.device_pages)
}

/// The blocks that are not as they were known, which they are from now on. Only of these the device is asked how many of
/// the pages that are not in system memory it has.
fn changes(
    known: &mut BTreeMap<u64, Block>,
    runs: &[PageRun],
    on_device: impl Fn(u64) -> u64,
) -> Vec<(u64, Block)> {
    let mut found: BTreeMap<u64, Block> = BTreeMap::new();
    for run in runs {
        let mut start = run.range.start;
        while start < run.range.end {
            let address = start / BLOCK_BYTES * BLOCK_BYTES;
            let end = run.range.end.min(address.saturating_add(BLOCK_BYTES));
            let block = found.entry(address).or_insert(Block {
                is_huge: true,
                ..Block::default()
            });
            let pages = (end - start) / PAGE_BYTES;
            match run.place {
                Place::Present => block.system += pages,
                Place::Away => block.away += pages,
            }
            block.is_huge &= run.is_huge;
            start = end;
        }
    }
    let gone = (known.keys())
        .filter(|address| !found.contains_key(address))
        .map(|&address| (address, Block::default()));
    let mut changes: Vec<(u64, Block)> = gone.collect();
    for (&address, block) in &mut found {
        let before = known.get(&address);
        let is_as_before = before.is_some_and(|before| {
            (before.away, before.system, before.is_huge)
                == (block.away, block.system, block.is_huge)
        });
        if is_as_before {
            block.device = before.map_or(0, |before| before.device);
            continue;
        }
        if block.away > 0 {
            block.device = on_device(address);
        }
        changes.push((address, *block));
    }
    *known = found;
    changes
}

/// The changes as marks that the kernel takes as a whole.
fn marks(pid: i32, changes: &[(u64, Block)]) -> Vec<String> {
    let head = format!("hmm_blocks: pid={pid}");
    let mut marks: Vec<String> = Vec::new();
    for (address, block) in changes {
        if marks.last().is_none_or(|mark| mark.len() > MARK_BYTES) {
            marks.push(head.clone());
        }
        if let Some(mark) = marks.last_mut() {
            let huge = u8::from(block.is_huge);
            // Writing to a string cannot fail.
            let _ = write!(
                mark,
                " {address:x}:{}:{}:{huge}",
                block.device, block.system
            );
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, Block, MARK_BYTES, PAGE_BYTES, changes, marks};
    use hmm_uapi::client::{PageRun, Place};
    use std::collections::BTreeMap;

    fn run(pages: std::ops::Range<u64>, place: Place, is_huge: bool) -> PageRun {
        PageRun {
            range: pages.start * PAGE_BYTES..pages.end * PAGE_BYTES,
            place,
            is_huge,
        }
    }

    #[test]
    fn only_changes_are_told_and_asked_for() {
        let mut known = BTreeMap::new();
        let runs = [
            run(512..1024, Place::Present, true),
            run(1024..1034, Place::Present, false),
            run(1034..1040, Place::Away, false),
        ];
        let told = changes(&mut known, &runs, |address| {
            assert_eq!(address, 2 * BLOCK_BYTES);
            5
        });
        let huge = Block {
            system: 512,
            is_huge: true,
            ..Block::default()
        };
        let mixed = Block {
            away: 6,
            system: 10,
            device: 5,
            is_huge: false,
        };
        assert_eq!(told, [(BLOCK_BYTES, huge), (2 * BLOCK_BYTES, mixed)]);
        let nothing = changes(&mut known, &runs, |_| panic!("nothing changed"));
        assert_eq!(nothing, []);
        let gone = changes(&mut known, &runs[..1], |_| panic!("nothing is away"));
        assert_eq!(gone, [(2 * BLOCK_BYTES, Block::default())]);
    }

    #[test]
    fn marks_are_short_and_lose_nothing() {
        let many: Vec<(u64, Block)> = (0..1000)
            .map(|index| (index * BLOCK_BYTES, Block::default()))
            .collect();
        let marks = marks(7, &many);
        assert!(marks.iter().all(|mark| mark.len() < MARK_BYTES + 64));
        let told: usize = marks.iter().map(|mark| mark.split(' ').count() - 2).sum();
        assert_eq!(told, 1000);
        assert!(marks[0].starts_with("hmm_blocks: pid=7 0:0:0:0 200000:0:0:0"));
    }
}
