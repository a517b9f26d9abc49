// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ranges that reach beyond what any process can map. A call must end soon and account for every page.

use crate::cases::support::ioctl::{RawNode, expect_errno};
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use hmm_uapi::client::PrefetchRequest;
use hmm_uapi::{
    ADVISE_NR, Advise, AdviseFlags, IOCTL_TYPE, PrefetchState, RESIDENCY_NR, Residency,
};
use rustix::io::Errno;
use std::ops::Range;
use zerocopy::IntoBytes;

pub(super) const CASES: &[Case] = &[
    Case::new("errors/ioctl-range-vast", calls),
    Case::new("errors/prefetch-range-vast", prefetches),
];

const PAGES: usize = 40;
/// The last page boundary that a number of 64 bits can tell.
const END: u64 = 0xffff_ffff_ffff_f000;

/// Ranges that contain `memory`, or no mapping at all.
fn ranges(memory: &Memory) -> [Range<u64>; 5] {
    let Range { start, end } = memory.range();
    [0..END, PAGE as u64..END, start..END, 0..end, 1 << 63..END]
}

fn filled() -> Result<Memory> {
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    Ok(memory)
}

fn calls() -> Result<()> {
    let mover = Mover::open()?;
    let node = RawNode::open(&nodes::first())?;
    let memory = filled()?;
    for range in ranges(&memory) {
        let name = format!("{range:x?}");
        let holds_memory = range.start <= memory.range().start;
        for direction in [Direction::ToDevice, Direction::ToSystem] {
            // This also checks that the call went to the end and counted each page once.
            let moved = mover
                .call(range.clone(), direction, MigrateFlags::default())
                .with_context(|| format!("{direction:?} {name}"))?;
            ensure!(
                moved.skipped(SkipReason::Unmapped) > 1 << 20,
                "{direction:?} {name}: {moved:?}"
            );
            if holds_memory {
                match direction {
                    Direction::ToDevice => mover.all_to_device(memory.range())?,
                    Direction::ToSystem => mover.expect_in_system(memory.range())?,
                }
            }
        }
        mover.all_to_device(memory.range())?;
        let evicted = mover
            .device
            .evict(Process::Caller, range.clone())
            .with_context(|| format!("EVICT {name}"))?;
        let pages = evicted.bytes_evicted / PAGE as u64 + evicted.skipped.total();
        ensure!(
            pages == (range.end - range.start) / PAGE as u64,
            "EVICT {name} accounts for {pages} pages: {evicted:?}"
        );
        let mut residency = Residency {
            start: range.start,
            end: range.end,
            ..Residency::default()
        };
        expect_errno(
            &format!("RESIDENCY {name}"),
            node.call(IOCTL_TYPE, RESIDENCY_NR, residency.as_mut_bytes()),
            Errno::TOOBIG,
        )?;
        let mut advise = Advise {
            flags: AdviseFlags::KEEP.0,
            keep: 1,
            start: range.start,
            end: range.end,
            ..Advise::default()
        };
        expect_errno(
            &format!("ADVISE {name}"),
            node.call(IOCTL_TYPE, ADVISE_NR, advise.as_mut_bytes()),
            Errno::NOMEM,
        )?;
    }
    memory.check(1)
}

fn prefetches() -> Result<()> {
    let mover = Mover::open()?;
    let memory = filled()?;
    for range in ranges(&memory) {
        for direction in [Some(Direction::ToDevice), Some(Direction::ToSystem), None] {
            let id = mover.device.prefetch(&PrefetchRequest {
                process: Process::Caller,
                range: range.clone(),
                direction,
                flags: MigrateFlags::default(),
            })?;
            let report = mover.device.wait(id, None)?;
            let pages = match direction {
                Some(_) => (range.end - range.start) / PAGE as u64,
                // Memory without advice is left alone and not counted.
                None => 0,
            };
            ensure!(
                report.state == PrefetchState::Done
                    && report.next == range.end
                    && report.pages_moved + report.skipped.total() == pages,
                "{direction:?} {range:x?}: {report:?}"
            );
        }
    }
    memory.check(1)
}
