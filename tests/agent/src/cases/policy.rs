// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `policy/*`: what a process says about where its memory had better be, and what comes of it.

use super::support::gate::Gate;
use super::support::ioctl::{RawNode, expect_errno};
use super::support::nodes;
use super::support::prelude::*;
use super::support::tracefs::Recording;
use hmm_uapi::client::{Advice, Error, PrefetchRequest};
use hmm_uapi::{
    Advise, Evict, IOCTL_TYPE, Limit, PREFETCHES_MAX, PreferredSide, Prefetch, PrefetchState, Wait,
};
use rustix::io::Errno;
use std::ops::Range;
use std::time::Duration;
use zerocopy::{Immutable, IntoBytes};

pub(super) const CASES: &[Case] = &[
    Case::new("policy/advise-window-anon-4k", window),
    Case::new("policy/advise-keep-anon-4k", keep),
    Case::new("policy/advise-side-and-prefetch-anon-4k", side),
    Case::new("policy/advise-ends-with-the-mapping", advice_ends),
    Case::new("policy/advise-bad-input", advise_bad_input),
    Case::new("policy/prefetch-anon-4k", prefetch),
    Case::new("policy/prefetch-cancelled-at-close", prefetch_cancelled),
    Case::new(
        "policy/prefetch-of-a-process-that-ends",
        prefetch_of_the_dead,
    ),
    Case::new("policy/prefetch-bad-input", prefetch_bad_input),
    Case::new("policy/evict-range-anon-4k", evict_range),
    Case::new("policy/evict-bytes-anon-4k", evict_bytes),
    Case::new("policy/evict-bad-input", evict_bad_input),
    Case::new("policy/limit-anon-4k", limit),
    Case::new("policy/limit-bad-input", limit_bad_input),
];

const PAGES: usize = 1024;
const BYTES: u64 = (PAGES * PAGE) as u64;

fn filled(seed: u64) -> Result<Memory> {
    let mut memory = Memory::single(PAGES)?;
    memory.fill(seed);
    Ok(memory)
}

fn advise(mover: &Mover, range: Range<u64>, advice: Advice) -> Result<()> {
    Ok(mover.device.advise(Process::Caller, range, advice)?)
}

fn request(range: Range<u64>, direction: Option<Direction>) -> PrefetchRequest {
    PrefetchRequest {
        process: Process::Caller,
        range,
        direction,
        flags: MigrateFlags::default(),
    }
}

/// A fault takes along what was advised, no more and no less, within its mapping.
fn window() -> Result<()> {
    let mover = Mover::open()?;
    for (least, most) in [(4 << 10, 4 << 10), (128 << 10, 128 << 10)] {
        let memory = filled(1)?;
        let window = Some((least, most));
        advise(
            &mover,
            memory.range(),
            Advice {
                window,
                ..Advice::default()
            },
        )?;
        mover.all_to_device(memory.range())?;
        let recording = Recording::start()?;
        // One page, in the middle: nobody reads in order here.
        memory.check_pages(PAGES / 2..PAGES / 2 + 1, 1)?;
        let faults = recording.named("fault")?;
        let home: u64 = faults
            .iter()
            .map(|fault| fault.number("bytes"))
            .sum::<Result<u64>>()?;
        ensure!(
            home == u64::from(most),
            "{most} bytes were to come home with the page: {faults:?}"
        );
        drop(recording);
        memory.check(1)?;
    }
    Ok(())
}

/// Eviction spares what is to be kept, whether that was said before or after it moved, until it is said no more.
fn keep() -> Result<()> {
    let mover = Mover::open()?;
    let keep = |yes| Advice {
        keep: Some(yes),
        ..Advice::default()
    };
    let (first, second, third) = (filled(1)?, filled(2)?, filled(3)?);
    advise(&mover, first.range(), keep(true))?;
    for memory in [&first, &second, &third] {
        // Separate blocks of device memory, of which a whole is kept if any page is.
        mover.all_to_device(memory.range())?;
    }
    advise(&mover, second.range(), keep(true))?;
    mover.device.evict_bytes(3 * BYTES)?;
    mover.expect_on_device(first.range())?;
    mover.expect_on_device(second.range())?;
    let third_home = mover
        .device
        .residency(Process::Caller, third.range())?
        .system_pages;
    ensure!(third_home > 0, "nothing of what may go went home");
    advise(&mover, first.range(), keep(false))?;
    advise(&mover, second.range(), keep(false))?;
    mover.device.evict_bytes(3 * BYTES)?;
    for memory in [&first, &second, &third] {
        mover.expect_in_system(memory.range())?;
    }
    first.check(1)?;
    second.check(2)?;
    third.check(3)
}

/// A prefetch without a direction moves each part to the side that is advised for it.
fn side() -> Result<()> {
    let mover = Mover::open()?;
    let memory = filled(1)?;
    let prefer = |range: Range<usize>, side| {
        advise(
            &mover,
            memory.part(range),
            Advice {
                side: Some(side),
                ..Advice::default()
            },
        )
    };
    mover.all_to_device(memory.part(0..600))?;
    prefer(100..300, PreferredSide::System)?;
    prefer(700..900, PreferredSide::Device)?;
    let id = mover.device.prefetch(&request(memory.range(), None))?;
    let report = mover.device.wait(id, None)?;
    ensure!(
        report.state == PrefetchState::Done && report.next == memory.range().end,
        "{report:?}"
    );
    ensure!(
        report.pages_moved + report.skipped.total() == 400,
        "200 pages each way, and nothing else: {report:?}"
    );
    // What was busy at that moment moves with a second one.
    let id = mover.device.prefetch(&request(memory.range(), None))?;
    mover.device.wait(id, None)?;
    mover.expect_on_device(memory.part(0..100))?;
    mover.expect_in_system(memory.part(100..300))?;
    mover.expect_on_device(memory.part(300..600))?;
    mover.expect_in_system(memory.part(600..700))?;
    mover.expect_on_device(memory.part(700..900))?;
    mover.expect_in_system(memory.part(900..PAGES))?;
    memory.check(1)
}

/// What is mapped later at the same addresses is something else.
fn advice_ends() -> Result<()> {
    let mover = Mover::open()?;
    let memory = filled(1)?;
    let device = Advice {
        side: Some(PreferredSide::Device),
        ..Advice::default()
    };
    advise(&mover, memory.range(), device)?;
    memory.unmap(100..200)?;
    let hole = memory.part(100..200);
    // SAFETY: The addresses were just unmapped, and nothing else in this process takes any.
    let again = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::with_exposed_provenance_mut(hole.start as usize),
            100 * PAGE,
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
            rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED_NOREPLACE,
        )?
    };
    ensure!(again.addr() as u64 == hole.start, "mapped elsewhere");
    let id = mover.device.prefetch(&request(hole.clone(), None))?;
    let report = mover.device.wait(id, None)?;
    ensure!(
        report.state == PrefetchState::Done
            && report.pages_moved == 0
            && report.skipped.total() == 0,
        "nothing is advised about the new mapping: {report:?}"
    );
    // SAFETY: Nothing refers to the mapping.
    unsafe { rustix::mm::munmap(again, 100 * PAGE)? };
    // A child starts without advice, and the parent keeps its own.
    fork(|| {
        let mover = Mover::open()?;
        let id = mover.device.prefetch(&request(memory.part(0..100), None))?;
        let report = mover.device.wait(id, None)?;
        ensure!(
            report.pages_moved == 0,
            "a child has inherited advice: {report:?}"
        );
        Ok(())
    })?
    .wait()?;
    let id = mover.device.prefetch(&request(memory.part(0..100), None))?;
    let report = mover.device.wait(id, None)?;
    ensure!(
        report.pages_moved > 0,
        "the parent has lost its advice: {report:?}"
    );
    memory.check_pages(0..100, 1)
}

/// Makes a call with a structure as it is.
fn call<T: IntoBytes + Immutable>(number: u8, argument: &T) -> Result<(), Errno> {
    let node = RawNode::open(&nodes::first()).map_err(|_| Errno::NODEV)?;
    let mut bytes = argument.as_bytes().to_vec();
    node.call(IOCTL_TYPE, number, &mut bytes)
}

fn advise_bad_input() -> Result<()> {
    let memory = filled(1)?;
    memory.unmap(10..20)?;
    let range = memory.part(20..40);
    let good = Advise {
        flags: 1,
        start: range.start,
        end: range.end,
        side: 1,
        ..Advise::default()
    };
    expect_errno_none("a good advice", call(hmm_uapi::ADVISE_NR, &good))?;
    let window = Advise {
        flags: 4,
        side: 0,
        ..good
    };
    for (what, advice, expected) in [
        (
            "no field",
            Advise {
                flags: 0,
                side: 0,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "an unknown field",
            Advise {
                flags: 8,
                side: 0,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "a value that does not count",
            Advise {
                flags: 2,
                keep: 1,
                ..good
            },
            Errno::INVAL,
        ),
        ("an unknown side", Advise { side: 3, ..good }, Errno::INVAL),
        (
            "keep 2",
            Advise {
                flags: 2,
                side: 0,
                keep: 2,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "half a window",
            Advise {
                window_least: 4096,
                ..window
            },
            Errno::INVAL,
        ),
        (
            "a window turned round",
            Advise {
                window_least: 8192,
                window_most: 4096,
                ..window
            },
            Errno::INVAL,
        ),
        (
            "a window of no power of two",
            Advise {
                window_least: 4096,
                window_most: 12288,
                ..window
            },
            Errno::INVAL,
        ),
        (
            "a window of 4 MiB",
            Advise {
                window_least: 4096,
                window_most: 4 << 20,
                ..window
            },
            Errno::INVAL,
        ),
        (
            "an empty range",
            Advise {
                end: good.start,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "an unaligned range",
            Advise {
                start: good.start + 1,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "a range that wraps",
            Advise { end: 4096, ..good },
            Errno::INVAL,
        ),
        (
            "a range with a hole",
            Advise {
                start: memory.range().start,
                end: memory.range().end,
                ..good
            },
            Errno::NOMEM,
        ),
        (
            "no process",
            Advise {
                pid: i32::MAX,
                ..good
            },
            Errno::SRCH,
        ),
        (
            "a process below zero",
            Advise { pid: -1, ..good },
            Errno::SRCH,
        ),
    ] {
        expect_errno(what, call(hmm_uapi::ADVISE_NR, &advice), expected)?;
    }
    memory.check_pages(20..PAGES, 1)
}

fn expect_errno_none(what: &str, result: Result<(), Errno>) -> Result<()> {
    ensure!(result == Ok(()), "{what}: {result:?}");
    Ok(())
}

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

/// Who closes the node waits for nobody, and what was begun stops.
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

/// A process has no more device memory than it may have, and what it gives back it may have again.
fn limit() -> Result<()> {
    let mover = Mover::open()?;
    let memory = filled(1)?;
    let device = &mover.device;
    let at_first = device.limit(Process::Caller)?;
    ensure!(
        at_first.limit_bytes.is_none() && at_first.resident_bytes == 0,
        "nobody has set a limit: {at_first:?}"
    );
    let allowed = 300;
    device.set_limit(Process::Caller, Some((allowed * PAGE) as u64))?;
    let moved = mover.to_device(memory.range())?;
    moved.expect(allowed, &[(SkipReason::OverLimit, PAGES - allowed)])?;
    let full = device.limit(Process::Caller)?;
    ensure!(
        full.limit_bytes == Some((allowed * PAGE) as u64)
            && full.resident_bytes == (allowed * PAGE) as u64,
        "{full:?}"
    );
    // A process without a limit is not touched by that of another.
    fork(|| {
        let mover = Mover::open()?;
        let memory = filled(2)?;
        mover.all_to_device(memory.range())?;
        memory.check(2)
    })?
    .wait()?;
    memory.check(1)?;
    ensure!(
        device.limit(Process::Caller)?.resident_bytes == 0,
        "all pages are home, and charged for"
    );
    mover
        .to_device(memory.range())?
        .expect(allowed, &[(SkipReason::OverLimit, PAGES - allowed)])?;
    device.set_limit(Process::Caller, None)?;
    mover.all_to_device(memory.range())?;
    ensure!(
        device.limit(Process::Caller)?.resident_bytes == BYTES,
        "{:?}",
        device.limit(Process::Caller)?
    );
    memory.check(1)
}

fn limit_bad_input() -> Result<()> {
    let good = Limit::default();
    expect_errno_none("a question", call(hmm_uapi::LIMIT_NR, &good))?;
    for (what, limit, expected) in [
        ("an unknown flag", Limit { flags: 2, ..good }, Errno::INVAL),
        (
            "no process",
            Limit {
                pid: i32::MAX,
                ..good
            },
            Errno::SRCH,
        ),
    ] {
        expect_errno(what, call(hmm_uapi::LIMIT_NR, &limit), expected)?;
    }
    Ok(())
}
