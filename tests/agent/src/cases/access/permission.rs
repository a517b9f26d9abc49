// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver follows the kernel's rule of who may debug whom.

use crate::cases::support::gate::Gate;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use crate::cases::support::program::Program;
use hmm_uapi::client::{Device, Error};
use rustix::process::{DumpableBehavior, Uid, set_dumpable_behavior};
use rustix::thread::{UnshareFlags, set_thread_uid};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

pub(super) const CASES: &[Case] = &[
    Case::new("access/same-user", same_user),
    Case::new("access/not-dumpable", not_dumpable),
    Case::new("access/user-namespace", user_namespace),
    Case::new("access/exec-setuid", exec_setuid),
];

const PAGES: usize = 20;
/// How often a process executes a program of root's while another looks at its memory.
const EXECS: usize = 20;

/// Gives up all privileges of root, and stays a process that others of the same user may debug.
fn become_nobody() -> Result<()> {
    set_thread_uid(Uid::from_raw(65534)).context("cannot become nobody")?;
    set_dumpable_behavior(DumpableBehavior::Dumpable).context("cannot become dumpable")
}

/// Asks the device where memory of another process is, and moves it.
fn moved(device: &Device, process: Process, range: Range<u64>) -> Result<u64, Error> {
    let request = hmm_uapi::client::MigrateRequest {
        process,
        range: range.clone(),
        direction: Direction::ToDevice,
        flags: MigrateFlags::default(),
    };
    device.residency(process, range)?;
    Ok(device.migrate_all(&request)?.pages_moved)
}

/// An answer must be that the process may not.
fn expect_refused(what: &str, result: Result<u64, Error>) -> Result<()> {
    ensure!(
        matches!(result, Err(Error::Permission { .. })),
        "{what}: {result:?}"
    );
    Ok(())
}

/// A process with `memory`, which `enter` is called in first, until the gate that it returns is opened.
fn target(memory: &mut Memory, enter: impl FnOnce() -> Result<()>) -> Result<(Child, Gate)> {
    let (ready, end) = (Gate::new()?, Gate::new()?);
    let child = fork(|| {
        enter()?;
        memory.fill(1);
        ready.open()?;
        end.wait()?;
        memory.check(1)
    })?;
    ready.wait()?;
    Ok((child, end))
}

/// Processes of one user may move each other's memory.
fn same_user() -> Result<()> {
    let mut memory = Memory::single(PAGES)?;
    let (nobodys, end) = target(&mut memory, become_nobody)?;
    let (other, range) = (nobodys.process()?, memory.range());
    fork(|| {
        let device = Device::open(nodes::first())?;
        become_nobody()?;
        let moved = moved(&device, other, range)?;
        ensure!(moved == PAGES as u64, "{moved} of {PAGES} pages moved");
        Ok(())
    })?
    .wait()?;
    end.open()?;
    nobodys.wait()
}

/// A process that others of its user may not debug keeps its memory to itself.
fn not_dumpable() -> Result<()> {
    let mut memory = Memory::single(PAGES)?;
    let (nobodys, end) = target(&mut memory, || {
        become_nobody()?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot refuse dumps")
    })?;
    let (other, range) = (nobodys.process()?, memory.range());
    fork(|| {
        let device = Device::open(nodes::first())?;
        let moved_by_root = moved(&device, other, range.clone())?;
        ensure!(moved_by_root == PAGES as u64, "root moved {moved_by_root}");
        become_nobody()?;
        expect_refused("not dumpable", moved(&device, other, range))
    })?
    .wait()?;
    end.open()?;
    nobodys.wait()
}

/// All capabilities in a user namespace are none over the memory of processes outside.
fn user_namespace() -> Result<()> {
    let mut outside = Memory::single(PAGES)?;
    let (roots, roots_end) = target(&mut outside, || Ok(()))?;
    let (outsider, range) = (roots.process()?, outside.range());
    fork(|| {
        let device = Device::open(nodes::first())?;
        become_nobody()?;
        // SAFETY: The process has one thread and shares no file table.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }
            .context("cannot make a user namespace")?;
        expect_refused(
            "root's memory from a user namespace",
            moved(&device, outsider, range),
        )?;
        let mut inside = Memory::single(PAGES)?;
        let (child, end) = target(&mut inside, || Ok(()))?;
        let moved = moved(&device, child.process()?, inside.range())?;
        ensure!(moved == PAGES as u64, "{moved} of {PAGES} pages moved");
        end.open()?;
        child.wait()
    })?
    .wait()?;
    roots_end.open()?;
    roots.wait()
}

/// The memory of a program with more privileges is refused from the moment at which it begins.
fn exec_setuid() -> Result<()> {
    let program = Path::new("/tmp/access-exec-setuid");
    fs::copy("/proc/self/exe", program).context("cannot copy this program")?;
    fs::set_permissions(program, fs::Permissions::from_mode(0o4755))?;
    let shared = Memory::shared(1)?;
    let memory = Memory::single(PAGES)?;
    let (starting, started, asked) = (shared.word(0), shared.word(4), shared.word(8));
    let result = fork(|| {
        let device = Device::open(nodes::first())?;
        become_nobody()?;
        let looker = fork(|| look(&device, &memory.range(), starting, started, asked))?;
        for _ in 0..EXECS {
            let before = asked.load(Relaxed);
            let program = Program::run(program, || {
                starting.store(std::process::id(), Relaxed);
                // The other process asks all the time.
                while asked.load(Relaxed) < before + 2 {
                    std::thread::yield_now();
                }
                Ok(())
            })?;
            started.store(program.child.id()?.cast_unsigned(), Relaxed);
            let before = asked.load(Relaxed);
            while asked.load(Relaxed) < before + 2 && !looker.has_ended()? {
                std::thread::yield_now();
            }
        }
        started.store(u32::MAX, Relaxed);
        looker.wait()
    })?
    .wait();
    fs::remove_file(program)?;
    result
}

/// Asks for the memory of the process `starting` until `started` is the highest number. Once that it is the same process, an
/// answer is an error.
fn look(
    device: &Device,
    range: &Range<u64>,
    starting: &AtomicU32,
    started: &AtomicU32,
    asked: &AtomicU32,
) -> Result<()> {
    let (mut answers, mut refusals) = (0, 0);
    loop {
        let begun = started.load(Relaxed);
        if begun == u32::MAX {
            ensure!(
                answers > 0 && refusals > 0,
                "{answers} answers, {refusals} refusals"
            );
            return Ok(());
        }
        let id = starting.load(Relaxed);
        if let Some(process) = Process::from_id(id.cast_signed()) {
            match moved(device, process, range.clone()) {
                Ok(_) if begun == id => bail!("a program of root's gives its memory away"),
                Ok(_) => answers += 1,
                Err(Error::Permission { .. } | Error::NoProcess { .. }) => refusals += 1,
                Err(error) => return Err(error.into()),
            }
        }
        asked.fetch_add(1, Relaxed);
    }
}
