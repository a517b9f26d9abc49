// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! LIMIT: how much device memory a process may have.

use super::super::support::ioctl::expect_errno;
use super::super::support::prelude::*;
use super::{BYTES, PAGES, call, expect_errno_none, filled};
use hmm_uapi::Limit;
use rustix::io::Errno;

pub(super) const CASES: &[Case] = &[
    Case::new("policy/limit-anon-4k", limit),
    Case::new("policy/limit-bad-input", limit_bad_input),
];

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
