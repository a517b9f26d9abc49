// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A process that moves the memory of others, all that is private there: mappings, heap and stack, whatever they do with
//! it at that moment.

use super::board::SLOTS;
use super::operation::Operation;
use super::site::Site;
use crate::cases::support::prelude::*;
use crate::cases::support::proc_self;
use crate::cases::support::random::Random;
use hmm_uapi::client::{Advice, Error, JobRequest, PrefetchRequest};
use std::ops::Range;
use std::time::Duration;

/// Most pages of one operation.
const MOST_PAGES: usize = 1024;
/// Most pages that are evicted at once.
const MOST_EVICTED: usize = 2048;
/// How long it leaves the others alone after each operation: on few processors they would do nothing else but wait.
const PAUSE: Duration = Duration::from_millis(5);

/// Starts one.
pub(super) fn start(site: &Site, seed: u64) -> Result<Child> {
    fork(|| {
        site.board.watch(|| {
            let mut random = Random::new(seed);
            while !site.board.is_over() {
                std::thread::sleep(PAUSE);
                let pid = site.board.process(random.below(SLOTS));
                if pid != 0 && meddle(site, &mut random, pid)? {
                    site.board.count(Operation::Outside);
                }
            }
            Ok(())
        })
    })
}

/// Does something to a process. Whether there was such a process.
fn meddle(site: &Site, random: &mut Random, pid: i32) -> Result<bool> {
    let process = Process::from_id(pid).context("a process id is positive")?;
    let Some(range) = some_range(random, pid) else {
        return Ok(false);
    };
    let node = &site.nodes[random.below(site.nodes.len())];
    let mover = Mover::on(node)?.of(process);
    let text = format!(
        "seed {}, outside of process {pid}, {:#x}-{:#x} on {}",
        site.seed,
        range.start,
        range.end,
        node.display()
    );
    let flags = MigrateFlags::default();
    let result = match random.below(9) {
        0..3 => mover.call(range, Direction::ToDevice, flags).map(drop),
        3 => mover.call(range, Direction::ToSystem, flags).map(drop),
        4 => mover
            .device
            .evict(process, range)
            .map(drop)
            .map_err(Into::into),
        5 => prefetch(&mover, process, range, random),
        6 => {
            let window = Some((0, 0));
            let advice = Advice {
                window,
                ..Advice::default()
            };
            mover
                .device
                .advise(process, range, advice)
                .map_err(Into::into)
        }
        7 => job(&mover, pid, range, random),
        _ => {
            let bytes = (1 + random.below(MOST_EVICTED)) * PAGE;
            mover
                .device
                .evict_bytes(bytes as u64)
                .map(drop)
                .map_err(Into::into)
        }
    };
    match result {
        Ok(()) => Ok(true),
        Err(error) if is_of_its_end(&error) => Ok(false),
        Err(error) => Err(error.context(text)),
    }
}

/// Begins a prefetch and gives it up: the device is closed while it goes on.
fn prefetch(mover: &Mover, process: Process, range: Range<u64>, random: &mut Random) -> Result<()> {
    let direction = match random.below(2) {
        0 => Direction::ToDevice,
        _ => Direction::ToSystem,
    };
    mover.device.prefetch(&PrefetchRequest {
        process,
        range,
        direction: Some(direction),
        flags: MigrateFlags::default(),
    })?;
    std::thread::sleep(Duration::from_millis(random.below(20) as u64));
    Ok(())
}

/// Begins a job that reads the memory, and gives it up: the device is closed while it goes on.
fn job(mover: &Mover, pid: i32, range: Range<u64>, random: &mut Random) -> Result<()> {
    let request = JobRequest::crc32c(range, 0);
    mover.device.begin_job_for(pid.try_into()?, &request)?;
    std::thread::sleep(Duration::from_millis(random.below(20) as u64));
    Ok(())
}

/// Part of a mapping that is private and writable. `None` if the process is gone, or nearly.
fn some_range(random: &mut Random, pid: i32) -> Option<Range<u64>> {
    let mut mappings = proc_self::mappings(pid).ok()?;
    mappings.retain(|(_, permissions)| permissions == "rw-p");
    if mappings.is_empty() {
        return None;
    }
    let (mapping, _) = mappings.swap_remove(random.below(mappings.len()));
    let pages = (mapping.end - mapping.start) as usize / PAGE;
    let first = random.below(pages);
    let length = 1 + random.below((pages - first).min(MOST_PAGES));
    let start = mapping.start + (first * PAGE) as u64;
    Some(start..start + (length * PAGE) as u64)
}

/// Whether the process has ended, or has unmapped or moved the memory meanwhile.
fn is_of_its_end(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(Error::NoProcess { .. } | Error::NotMapped { .. })
    )
}
