// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! LIMIT: how much device memory a process may have.

use super::super::support::gate::Gate;
use super::super::support::ioctl::expect_errno;
use super::super::support::prelude::*;
use super::super::support::program::Program;
use super::{BYTES, PAGES, call, expect_errno_none, filled};
use hmm_uapi::Limit;
use hmm_uapi::client::Error;
use rustix::io::Errno;
use rustix::pipe::pipe;
use std::path::Path;

pub(super) const CASES: &[Case] = &[
    Case::new("policy/limit-anon-4k", limit),
    Case::new("policy/limit-bad-input", limit_bad_input),
    Case::new("policy/limit-raise-needs-capability", raise),
    Case::new("policy/limit-inherited-by-fork-anon-4k", inherited_by_fork),
    Case::new("policy/limit-kept-over-exec", kept_over_exec),
    Case::new("policy/limit-of-many-processes-anon-4k", many_processes).within(300),
];

/// A limit in pages, far below [`PAGES`].
const ALLOWED: usize = 300;
const ALLOWED_BYTES: u64 = (ALLOWED * PAGE) as u64;
/// More processes than any fixed table of the driver ever had room for.
const MANY: usize = 1500;

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
    // A process has its own account, and without a limit it is not touched by that of another.
    fork(|| {
        let mover = Mover::open()?;
        mover.device.set_limit(Process::Caller, None)?;
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

/// A process may lower its limit, and takes `CAP_SYS_RESOURCE` to raise it.
fn raise() -> Result<()> {
    fork(|| {
        let device = Mover::open()?.device;
        device.set_limit(Process::Caller, Some(ALLOWED_BYTES))?;
        device.set_limit(Process::Caller, Some(2 * ALLOWED_BYTES))?;
        let user = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_uid(user).context("cannot become nobody")?;
        for higher in [None, Some(2 * ALLOWED_BYTES + PAGE as u64)] {
            let refused = device.set_limit(Process::Caller, higher);
            ensure!(
                matches!(refused, Err(Error::Permission { .. })),
                "nobody raised the limit to {higher:?}: {refused:?}"
            );
        }
        for same_or_lower in [2 * ALLOWED_BYTES, ALLOWED_BYTES] {
            device.set_limit(Process::Caller, Some(same_or_lower))?;
        }
        let refused = device.set_limit(Process::Caller, Some(2 * ALLOWED_BYTES));
        ensure!(refused.is_err(), "nobody raised the limit again");
        let limit = device.limit(Process::Caller)?.limit_bytes;
        ensure!(limit == Some(ALLOWED_BYTES), "the limit is {limit:?}");
        Ok(())
    })?
    .wait()
}

/// Moves memory that does not fit under the limit.
fn expect_limited(seed: u64) -> Result<()> {
    let mover = Mover::open()?;
    let memory = filled(seed)?;
    mover
        .to_device(memory.range())?
        .expect(ALLOWED, &[(SkipReason::OverLimit, PAGES - ALLOWED)])?;
    memory.check(seed)
}

/// Children, and children whose parent has ended, have the limit of the process that began them; each has its own account.
fn inherited_by_fork() -> Result<()> {
    let (orphaned, done) = (Gate::new()?, Gate::new()?);
    let limited = fork(|| {
        let device = Mover::open()?.device;
        device.set_limit(Process::Caller, Some(ALLOWED_BYTES))?;
        expect_limited(1)?;
        fork(|| {
            expect_limited(2)?;
            fork(|| expect_limited(3))?.wait()
        })?
        .wait()?;
        fork(|| {
            // The driver hears of this process for the first time when its parent is gone.
            let orphan = fork(|| {
                orphaned.wait()?;
                expect_limited(4)?;
                done.open()
            })?;
            std::mem::forget(orphan);
            Ok(())
        })?
        .wait()?;
        orphaned.open()?;
        done.wait()
    })?;
    limited.wait()?;
    // Nothing is inherited upwards.
    let limit = Mover::open()?.device.limit(Process::Caller)?.limit_bytes;
    ensure!(limit.is_none(), "the parent has the limit {limit:?}");
    Ok(())
}

/// Another program in the same process has its limit.
fn kept_over_exec() -> Result<()> {
    let device = Mover::open()?.device;
    let program = Program::run(Path::new("/proc/self/exe"), || {
        (Mover::open()?.device).set_limit(Process::Caller, Some(ALLOWED_BYTES))?;
        Ok(())
    })?;
    let limit = device.limit(program.child.process()?)?.limit_bytes;
    ensure!(
        limit == Some(ALLOWED_BYTES),
        "after exec the limit is {limit:?}"
    );
    Ok(())
}

/// Each of many processes has its limit, and none has none for want of room.
fn many_processes() -> Result<()> {
    let ready = Gate::new()?;
    let (end, open) = pipe().context("cannot make a pipe")?;
    let mut open = Some(open);
    let mut children = Vec::with_capacity(MANY);
    for _ in 0..MANY {
        children.push(fork(|| {
            // Or the children keep each other waiting.
            drop(open.take());
            let mover = Mover::open()?;
            let mut memory = Memory::single(2)?;
            memory.fill(1);
            mover.device.set_limit(Process::Caller, Some(PAGE as u64))?;
            let moved = mover.to_device(memory.range());
            ready.open()?;
            moved?.expect(1, &[(SkipReason::OverLimit, 1)])?;
            rustix::io::read(&end, &mut [0])?;
            memory.check(1)
        })?);
        ready.wait()?;
    }
    drop(open);
    children.into_iter().try_for_each(Child::wait)
}
