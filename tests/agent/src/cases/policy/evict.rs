// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! EVICT: a range, or so many bytes of any process.

use super::super::support::ioctl::expect_errno;
use super::super::support::prelude::*;
use super::super::support::tracefs::Recording;
use super::{BYTES, PAGES, call, filled};
use hmm_uapi::Evict;
use rustix::io::Errno;

pub(super) const CASES: &[Case] = &[
    Case::new("policy/evict-range-anon-4k", evict_range),
    Case::new("policy/evict-bytes-anon-4k", evict_bytes),
    Case::new("policy/evict-bad-input", evict_bad_input),
];

fn evict_range() -> Result<()> {
    let mover = Mover::open()?;
    let memory = filled(1)?;
    mover.all_to_device(memory.range())?;
    let report = mover.device.evict(Process::Caller, memory.part(100..300))?;
    ensure!(
        report.bytes_evicted + report.skipped.total() * PAGE as u64 == (200 * PAGE) as u64,
        "200 pages were to come home: {report:?}"
    );
    mover.to_system(memory.part(100..300))?;
    mover.expect_on_device(memory.part(0..100))?;
    mover.expect_in_system(memory.part(100..300))?;
    mover.expect_on_device(memory.part(300..PAGES))?;
    memory.check(1)
}

fn evict_bytes() -> Result<()> {
    let mover = Mover::open()?;
    let memory = filled(1)?;
    mover.all_to_device(memory.range())?;
    let recording = Recording::start()?;
    let report = mover.device.evict_bytes(PAGE as u64)?;
    ensure!(
        report.bytes_evicted >= PAGE as u64 && report.bytes_evicted <= BYTES,
        "a page was to come home, and may bring its block: {report:?}"
    );
    let evictions = recording.named("evict")?;
    let told = evictions
        .iter()
        .map(|event| event.number("bytes"))
        .sum::<Result<u64>>()?;
    ensure!(
        told == report.bytes_evicted
            && evictions
                .iter()
                .all(|event| event.is("trigger", "eviction")),
        "{report:?}, and the trace tells of {evictions:?}"
    );
    drop(recording);
    let left = mover.resident()?;
    ensure!(
        left + report.bytes_evicted == BYTES,
        "{left} bytes are left: {report:?}"
    );
    // More than there is.
    mover.device.evict_bytes(1 << 40)?;
    ensure!(mover.resident()? == 0, "{} bytes stayed", mover.resident()?);
    mover.expect_in_system(memory.range())?;
    memory.check(1)
}

fn evict_bad_input() -> Result<()> {
    let memory = filled(1)?;
    let (start, end) = (memory.range().start, memory.range().end);
    for (what, evict, expected) in [
        ("neither", Evict::default(), Errno::INVAL),
        (
            "both",
            Evict {
                start,
                end,
                bytes: 4096,
                ..Evict::default()
            },
            Errno::INVAL,
        ),
        (
            "half a page",
            Evict {
                bytes: 2048,
                ..Evict::default()
            },
            Errno::INVAL,
        ),
        (
            "bytes of a process",
            Evict {
                bytes: 4096,
                pid: 1,
                ..Evict::default()
            },
            Errno::INVAL,
        ),
        (
            "a flag",
            Evict {
                flags: 1,
                bytes: 4096,
                ..Evict::default()
            },
            Errno::INVAL,
        ),
        (
            "a range that wraps",
            Evict {
                start,
                end: 4096,
                ..Evict::default()
            },
            Errno::INVAL,
        ),
        (
            "no process",
            Evict {
                start,
                end,
                pid: i32::MAX,
                ..Evict::default()
            },
            Errno::SRCH,
        ),
    ] {
        expect_errno(what, call(hmm_uapi::EVICT_NR, &evict), expected)?;
    }
    memory.check(1)
}
