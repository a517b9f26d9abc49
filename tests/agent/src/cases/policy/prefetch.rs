// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! PREFETCH and WAIT: moves that go on by themselves.

use super::super::support::gate::Gate;
use super::super::support::inject::Faults;
use super::super::support::ioctl::expect_errno;
use super::super::support::prelude::*;
use super::super::support::signals::{Calls, while_interrupted};
use super::super::support::tracefs::Recording;
use super::{PAGES, call, filled, request};
use hmm_uapi::client::{Error, PrefetchRequest};
use hmm_uapi::{PREFETCHES_MAX, Prefetch, PrefetchState, Wait};
use rustix::io::Errno;
use serde_json::json;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("policy/prefetch-anon-4k", prefetch),
    Case::new("policy/wait-interrupted-by-signal", wait_interrupted),
    Case::new("policy/prefetch-cancelled-at-close", prefetch_cancelled),
    Case::new(
        "policy/prefetch-of-a-process-that-ends",
        prefetch_of_the_dead,
    ),
    Case::new("policy/prefetch-bad-input", prefetch_bad_input),
];

/// A move that goes on by itself, and can be asked after and waited for.
fn prefetch() -> Result<()> {
    let mover = Mover::open()?;
    let memory = filled(1)?;
    let device = &mover.device;
    let recording = Recording::start()?;
    let id = device.prefetch(&request(memory.range(), Some(Direction::ToDevice)))?;
    let report = device.wait(id, Some(Duration::from_secs(60)))?;
    ensure!(
        report.state == PrefetchState::Done
            && report.error.is_none()
            && report.next == memory.range().end
            && report.pages_moved + report.skipped.total() == PAGES as u64,
        "{report:?}"
    );
    for batch in recording.named("batch_submit")? {
        ensure!(batch.is("trigger", "prefetch"), "{batch:?}");
    }
    drop(recording);
    // What was told is forgotten.
    let gone = device.prefetch_state(id);
    ensure!(
        matches!(
            gone,
            Err(Error::Call {
                errno: Errno::NOENT,
                ..
            })
        ),
        "the end was told, and again: {gone:?}"
    );
    mover.all_to_device(memory.range())?;
    let id = device.prefetch(&request(memory.range(), Some(Direction::ToSystem)))?;
    device.wait(id, None)?;
    mover.to_system(memory.range())?;
    mover.expect_in_system(memory.range())?;
    memory.check(1)
}

/// A signal ends the waiting, but not the move, which can be waited for again.
fn wait_interrupted() -> Result<()> {
    let mover = Mover::open()?;
    let faults = Faults::of_first_device()?;
    let memory = filled(1)?;
    // A signal may also end the first call for a process.
    mover.all_to_device(memory.part(0..1))?;
    memory.check(1)?;
    for (direction, limit, calls) in [
        (Direction::ToDevice, None, Calls::End),
        (
            Direction::ToSystem,
            Some(Duration::from_secs(60)),
            Calls::End,
        ),
        (Direction::ToDevice, None, Calls::Restart),
        // What is left of a limit is not known to a call that begins again.
        (
            Direction::ToSystem,
            Some(Duration::from_secs(60)),
            Calls::Restart,
        ),
    ] {
        faults.add(
            json!({ "action": "delay", "queue": "bulk", "microseconds": 500_000, "count": 1 }),
        )?;
        // Nothing here maps memory: that would wait for the batch.
        let (report, interruptions) = while_interrupted(calls, || {
            let id = (mover.device).prefetch(&request(memory.range(), Some(direction)))?;
            let mut interruptions = 0;
            loop {
                match mover.device.wait(id, limit) {
                    Err(Error::Call {
                        errno: Errno::INTR, ..
                    }) => interruptions += 1,
                    ended => return Ok((ended?, interruptions)),
                }
            }
        })?;
        let begins_again = limit.is_none() && calls == Calls::Restart;
        ensure!(
            (interruptions == 0) == begins_again,
            "{calls:?}, {limit:?}: {interruptions} interruptions"
        );
        ensure!(
            report.state == PrefetchState::Done && report.pages_moved == PAGES as u64,
            "{report:?}"
        );
    }
    memory.check(1)
}

/// Closing the node does not block, and stops prefetches that are under way.
fn prefetch_cancelled() -> Result<()> {
    let memory = filled(1)?;
    let mover = Mover::open()?;
    for _ in 0..PREFETCHES_MAX {
        mover
            .device
            .prefetch(&request(memory.range(), Some(Direction::ToDevice)))?;
    }
    let more = mover
        .device
        .prefetch(&request(memory.range(), Some(Direction::ToDevice)));
    ensure!(
        matches!(
            more,
            Err(Error::Call {
                errno: Errno::AGAIN,
                ..
            })
        ),
        "one more than there may be: {more:?}"
    );
    drop(mover);
    // Nothing moves any more, so what is checked now stays.
    memory.check(1)?;
    let mover = Mover::open()?;
    ensure!(
        mover.resident()? == 0,
        "a prefetch went on after its node was closed"
    );
    let id = mover
        .device
        .prefetch(&request(memory.range(), Some(Direction::ToDevice)))?;
    let report = mover.device.cancel(id)?;
    ensure!(
        matches!(report.state, PrefetchState::Cancelled | PrefetchState::Done),
        "{report:?}"
    );
    memory.check(1)
}

fn prefetch_of_the_dead() -> Result<()> {
    let (ready, end) = (Gate::new()?, Gate::new()?);
    let mut memory = Memory::single(PAGES)?;
    let child = fork(|| {
        memory.fill(1);
        ready.open()?;
        end.wait()
    })?;
    ready.wait()?;
    let process = Process::from_id(child.id()?).context("a child has an id")?;
    let device = Mover::open()?.device;
    let request = PrefetchRequest {
        process,
        ..request(memory.range(), Some(Direction::ToDevice))
    };
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(device.prefetch(&request)?);
    }
    end.open()?;
    child.wait()?;
    for id in ids {
        let report = device.wait(id, None)?;
        ensure!(
            report.state == PrefetchState::Done
                || (report.state == PrefetchState::Failed && report.error == Some(Errno::SRCH)),
            "{report:?}"
        );
    }
    let refused = device.prefetch(&request);
    ensure!(
        matches!(refused, Err(Error::NoProcess { .. })),
        "the process has ended: {refused:?}"
    );
    Ok(())
}

fn prefetch_bad_input() -> Result<()> {
    let memory = filled(1)?;
    let good = Prefetch {
        direction: 1,
        start: memory.range().start,
        end: memory.range().end,
        ..Prefetch::default()
    };
    for (what, prefetch, expected) in [
        (
            "an unknown flag",
            Prefetch { flags: 4, ..good },
            Errno::INVAL,
        ),
        (
            "a flag to system memory",
            Prefetch {
                flags: 1,
                direction: 2,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "an unknown direction",
            Prefetch {
                direction: 3,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "a reserved field",
            Prefetch {
                reserved: 1,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "an empty range",
            Prefetch {
                end: good.start,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "a range that wraps",
            Prefetch { end: 4096, ..good },
            Errno::INVAL,
        ),
        (
            "no process",
            Prefetch {
                pid: i32::MAX,
                ..good
            },
            Errno::SRCH,
        ),
    ] {
        expect_errno(what, call(hmm_uapi::PREFETCH_NR, &prefetch), expected)?;
    }
    let none = Wait {
        id: 77,
        ..Wait::default()
    };
    expect_errno(
        "a prefetch that is not there",
        call(hmm_uapi::WAIT_NR, &none),
        Errno::NOENT,
    )?;
    let flag = Wait { flags: 2, ..none };
    expect_errno(
        "an unknown flag",
        call(hmm_uapi::WAIT_NR, &flag),
        Errno::INVAL,
    )?;
    memory.check(1)
}
