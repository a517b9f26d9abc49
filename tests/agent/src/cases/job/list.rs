// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A linked list that the CPU builds, the device walks, and both change.

use crate::cases::support::jobs::{Jobs, blocks, windows};
use crate::cases::support::prelude::*;
use crate::cases::support::random::Random;
use hmm_uapi::PreferredSide;
use hmm_uapi::client::{Advice, JobRequest};
use std::ops::Range;

pub(super) const CASES: &[Case] =
    &[Case::new("job/list-of-a-million-nodes-anon-4k", million).within(300)];

const NODES: usize = 1_000_000;
const NODE: usize = 16;

/// Links all nodes of `memory` in a random order. Returns the addresses of the first.
fn link(memory: &mut Memory) -> u64 {
    let mut order: Vec<u32> = (0..NODES as u32).collect();
    let mut random = Random::new(14);
    for index in (1..NODES).rev() {
        order.swap(index, random.below(index + 1));
    }
    let base = memory.address() as u64;
    let address = |node: u32| base + u64::from(node) * NODE as u64;
    let bytes = memory.bytes_mut();
    for (place, &node) in order.iter().enumerate() {
        let next = order.get(place + 1).map_or(0, |&next| address(next));
        let offset = node as usize * NODE;
        bytes[offset..offset + 8].copy_from_slice(&next.to_le_bytes());
        bytes[offset + 8..offset + 16].copy_from_slice(&u64::from(node).to_le_bytes());
    }
    address(order[0])
}

/// In any order of nodes a window around each page of system memory is mapped once, and a block of 2 MiB moves to the device
/// at once. A page that another task holds for a moment does not move, and may be faulted in by itself: `left` pages at most.
fn expect_faults(range: &Range<u64>, side: PreferredSide, faults: u64, left: u64) -> Result<()> {
    let (least, most) = match side {
        PreferredSide::Device => (blocks(range), blocks(range) + left),
        _ => (windows(range), windows(range)),
    };
    eprintln!("{side:?}: {faults} faults, {least} to {most} expected");
    ensure!(
        (least..=most).contains(&faults),
        "{faults} faults, and {least} to {most} expected, {side:?}"
    );
    Ok(())
}

/// Pages that did not move when they should.
fn skipped(mover: &Mover) -> Result<u64> {
    Ok(mover.device.stats()?.pages_skipped.iter().sum())
}

fn million() -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let pages = (NODES * NODE).div_ceil(PAGE);
    let nodes = NODES as u64;
    for side in [PreferredSide::System, PreferredSide::Device] {
        let mut memory = Memory::single(pages)?;
        let head = link(&mut memory);
        let walk = |add: Option<u64>| JobRequest::walk(head, 0, 8, nodes, add);
        let mut sum = nodes * (nodes - 1) / 2;
        jobs.device.advise(
            Process::Caller,
            memory.range(),
            Advice {
                side: Some(side),
                ..Advice::default()
            },
        )?;
        let before = skipped(&mover)?;
        let report = jobs.done(&walk(None))?;
        ensure!(
            report.result == sum && report.amount == nodes,
            "expected {sum}: {report:?}"
        );
        let left = skipped(&mover)? - before;
        expect_faults(&memory.range(), side, report.faults, left)?;
        // The device changes every node; it tells the sum of before.
        // Nothing that is mapped for reading has to be mapped once more for writing.
        let report = jobs.done(&walk(Some(3)))?;
        ensure!(
            report.result == sum && report.faults == 0,
            "expected {sum}: {report:?}"
        );
        sum += 3 * nodes;
        // The CPU changes every node, and on its way sees what the device did.
        for node in 0..NODES {
            let value = &mut memory.bytes_mut()[node * NODE + 8..node * NODE + 16];
            let found = u64::from_le_bytes(value.try_into()?);
            ensure!(
                found == node as u64 + 3,
                "node {node} has {found}, expected {}",
                node + 3
            );
            value.copy_from_slice(&(found + 4).to_le_bytes());
        }
        sum += 4 * nodes;
        let before = skipped(&mover)?;
        let report = jobs.done(&walk(None))?;
        ensure!(report.result == sum, "expected {sum}: {report:?}");
        match side {
            // The CPU took all of it back.
            PreferredSide::Device => {
                let left = skipped(&mover)? - before;
                expect_faults(&memory.range(), side, report.faults, left)?;
            }
            _ => ensure!(report.faults == 0, "{} faults again", report.faults),
        }
        // A page that another task holds for a moment does not move.
        let counts = mover.device.residency(Process::Caller, memory.range())?;
        let there = match side {
            PreferredSide::Device => counts.device_pages,
            _ => counts.system_pages,
        };
        ensure!(there * 100 >= 99 * pages as u64, "{side:?}: {counts:?}");
    }
    Ok(())
}
