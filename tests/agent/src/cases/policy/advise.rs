// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! ADVISE: what is said of a range, and how long it holds.

use super::super::support::ioctl::{RawNode, expect_errno};
use super::super::support::nodes;
use super::super::support::prelude::*;
use super::super::support::proc_self;
use super::super::support::tracefs::Recording;
use super::{BYTES, PAGES, call, expect_errno_none, filled, request};
use hmm_uapi::client::Advice;
use hmm_uapi::{ADVISE_FIRST_BYTES, ADVISE_NR, Advise, IOCTL_TYPE, PreferredSide, PrefetchState};
use rustix::io::Errno;
use std::ops::Range;
use zerocopy::IntoBytes;

pub(super) const CASES: &[Case] = &[
    Case::new("policy/advise-window-anon-4k", window),
    Case::new("policy/advise-keep-anon-4k", keep),
    Case::new("policy/advise-keep-part-anon-4k", || {
        keep_part(&filled(1)?, true)?;
        keep_part(&filled(1)?, false)
    }),
    Case::new("policy/advise-keep-part-anon-thp", || {
        keep_part(&huge()?, true)?;
        keep_part(&huge()?, false)
    }),
    Case::new("policy/advise-side-and-prefetch-anon-4k", side),
    Case::new("policy/advise-ends-with-the-mapping", advice_ends),
    Case::new("policy/advise-bad-input", advise_bad_input),
];

fn advise(mover: &Mover, range: Range<u64>, advice: Advice) -> Result<()> {
    Ok(mover.device.advise(Process::Caller, range, advice)?)
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
        // One page, in the middle: no sequential access.
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
        mover.all_to_device(memory.range())?;
    }
    advise(&mover, second.range(), keep(true))?;
    mover.device.evict_bytes(3 * BYTES)?;
    mover.expect_on_device(first.range())?;
    mover.expect_on_device(second.range())?;
    mover.expect_in_system(third.range())?;
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

/// Huge pages, filled as [`keep_part`] expects it.
fn huge() -> Result<Memory> {
    let mut memory = Memory::huge(2)?;
    memory.fill(1);
    let huge = proc_self::smaps(memory.range().start, "AnonHugePages")?;
    match huge == memory.length() as u64 {
        true => Ok(memory),
        false => Err(skip("the kernel gives no huge pages")),
    }
}

/// Eviction spares what is to be kept of a block, and only that, whether it was advised `before` the memory moved or after.
fn keep_part(memory: &Memory, before: bool) -> Result<()> {
    let kept = 100..300;
    let keep = |yes| Advice {
        keep: Some(yes),
        ..Advice::default()
    };
    let mover = Mover::open()?;
    if before {
        advise(&mover, memory.part(kept.clone()), keep(true))?;
    }
    mover.all_to_device(memory.range())?;
    if !before {
        advise(&mover, memory.part(kept.clone()), keep(true))?;
    }
    for round in 0..2 {
        let report = mover.device.evict_bytes(3 * BYTES)?;
        (mover.expect_in_system(memory.part(0..kept.start)))
            .and_then(|()| mover.expect_on_device(memory.part(kept.clone())))
            .and_then(|()| mover.expect_in_system(memory.part(kept.end..PAGES)))
            .with_context(|| format!("advised before: {before}, round {round}: {report:?}"))?;
        // The next eviction finds pages of the same blocks again.
        mover.all_to_device(memory.range())?;
    }
    advise(&mover, memory.part(kept), keep(false))?;
    mover.device.evict_bytes(3 * BYTES)?;
    mover.expect_in_system(memory.range())?;
    memory.check(1)
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
    expect_errno_none("a good advice", call(ADVISE_NR, &good))?;
    // A program of version 2 knows less of the structure, and nothing beyond that is written.
    let node = RawNode::open(&nodes::first())?;
    let mut older = [&good.as_bytes()[..ADVISE_FIRST_BYTES], &[0xa5; 8]].concat();
    node.call(IOCTL_TYPE, ADVISE_NR, &mut older[..ADVISE_FIRST_BYTES])
        .context("an advice of version 2")?;
    ensure!(
        older[ADVISE_FIRST_BYTES..] == [0xa5; 8],
        "the driver wrote beyond the caller's structure"
    );
    for bytes in [ADVISE_FIRST_BYTES - 1, size_of::<Advise>() - 1] {
        let result = node.call(
            IOCTL_TYPE,
            ADVISE_NR,
            &mut good.as_bytes().to_vec()[..bytes],
        );
        let expected = match bytes < ADVISE_FIRST_BYTES {
            true => Err(Errno::INVAL),
            false => Ok(()),
        };
        ensure!(result == expected, "{bytes} bytes of an advice: {result:?}");
    }
    let touches = Advise {
        flags: 8,
        side: 0,
        ..good
    };
    for count in [0, 1, 7, u32::MAX] {
        let advice = Advise {
            touches: count,
            ..touches
        };
        expect_errno_none("touches", call(ADVISE_NR, &advice))?;
    }
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
                flags: 16,
                side: 0,
                ..good
            },
            Errno::INVAL,
        ),
        (
            "touches that do not count",
            Advise { touches: 1, ..good },
            Errno::INVAL,
        ),
        (
            "a reserved field",
            Advise {
                reserved: 1,
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
        expect_errno(what, call(ADVISE_NR, &advice), expected)?;
    }
    memory.check_pages(20..PAGES, 1)
}
