// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A process that waits for the memory of another one can be killed, and the memory of a process that was killed is left
//! alone.

use crate::cases::support::driver::Reloaded;
use crate::cases::support::gate::Gate;
use crate::cases::support::inject::Faults;
use crate::cases::support::ioctl::RawNode;
use crate::cases::support::nodes;
use crate::cases::support::prelude::*;
use hmm_uapi::client::{Advice, PrefetchRequest};
use hmm_uapi::{IOCTL_TYPE, MIGRATE_NR, Migrate};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

pub(super) const CASES: &[Case] = &[
    Case::new("access/killed-while-mmap-lock-is-held", caller_killed),
    Case::new("access/target-killed", target_killed),
];

/// More than one piece of a request, so that workers help with it.
const PAGES: usize = 4 * HUGE / PAGE;
/// How long the driver waits for the device, milliseconds: longer than the case takes.
const TIMEOUT: &str = "timeout_ms=60000";
/// How long threads may take to where they wait.
const LIMIT: Duration = Duration::from_secs(25);
/// Parts of the names of the functions that wait for the mmap lock: of `mmap()`, and of the driver.
const WRITER: &[&str] = &["vm_mmap_pgoff"];
const READER: &[&str] = &["mmap_read_lock", "mmap_lock"];

/// Asks for something about a range of another process.
type Call = fn(&Mover, Process, Range<u64>) -> Result<()>;

/// What a process asks for while the other one's mmap lock is held.
const CALLS: [Call; 4] = [
    |mover, process, range| Ok(mover.device.residency(process, range).map(drop)?),
    |mover, process, range| {
        let advice = Advice {
            keep: Some(true),
            ..Advice::default()
        };
        Ok(mover.device.advise(process, range, advice)?)
    },
    |mover, process, range| Ok((mover.device.evict(process, range)).map(drop)?),
    |mover, process, range| {
        let request = hmm_uapi::client::MigrateRequest {
            process,
            range,
            direction: Direction::ToDevice,
            flags: MigrateFlags::default(),
        };
        Ok(mover.device.migrate(&request).map(drop)?)
    },
];

/// A process moves its own memory, and the device does not answer. So the process holds its mmap lock for reading, another
/// of its threads waits to map memory, and every other reader waits behind that one. A caller that waits so ends when it is
/// killed.
fn caller_killed() -> Result<()> {
    let _driver = Reloaded::with(TIMEOUT)?;
    let (ready, stalled, go, moved) = (Gate::new()?, Gate::new()?, Gate::new()?, Gate::new()?);
    let mut memory = Memory::single(PAGES)?;
    let range = memory.range();
    let target = fork(|| {
        let mover = Mover::open()?;
        memory.fill(1);
        // The driver knows the process, and its thread exists.
        mover.all_to_device(memory.part(0..1))?;
        thread::scope(|scope| {
            let mapper = scope.spawn(|| {
                go.wait()?;
                Memory::single(1).map(drop)
            });
            ready.open()?;
            stalled.wait()?;
            let all = mover.to_device(memory.range());
            moved.open()?;
            all?;
            match mapper.join() {
                Ok(result) => result,
                Err(_) => bail!("a thread panicked"),
            }
        })?;
        memory.check(1)
    })?;
    ready.wait()?;
    // Taken away before the processes are waited for, however the case ends.
    let faults = Faults::of_first_device()?;
    faults.add(json!({ "action": "stall" }))?;
    let device = Mover::open()?.device;
    let before = device.stats()?.batches;
    stalled.open()?;
    // A batch that is in flight was collected with the lock, and keeps it.
    wait_until("no batch is sent", || Ok(device.stats()?.batches > before))?;
    go.open()?;
    wait_until_in(target.id()?, WRITER)?;

    let process = target.process()?;
    let mut callers = Vec::new();
    for call in CALLS {
        let range = range.clone();
        callers.push(fork(move || call(&Mover::open()?, process, range))?);
    }
    for caller in &callers {
        wait_until_in(caller.id()?, READER)?;
    }
    let begun = Gate::new()?;
    let prefetcher = fork(|| {
        let device = Mover::open()?.device;
        let id = device.prefetch(&PrefetchRequest {
            process,
            range: range.clone(),
            direction: Some(Direction::ToDevice),
            flags: MigrateFlags::default(),
        })?;
        begun.open()?;
        device.wait(id, None)?;
        bail!("the prefetch has ended")
    })?;
    begun.wait()?;
    callers.push(prefetcher);
    for caller in &callers {
        caller.signal(Signal::KILL)?;
    }
    let killed = callers.len();
    for caller in callers {
        caller.wait_for_signal(Signal::KILL)?;
    }
    let is_held = is_any_in(target.id()?, WRITER)?;
    faults.clear()?;
    ensure!(
        is_held,
        "not all of {killed} killed processes ended before the mmap lock was free"
    );
    moved.wait()?;
    target.wait()
}

/// The memory of a process that is killed is not moved to its end.
fn target_killed() -> Result<()> {
    let ready = Gate::new()?;
    let mut memory = Memory::single(32 * HUGE / PAGE)?;
    let range = memory.range();
    let device = Mover::open()?.device;
    let target = fork(|| {
        memory.fill(1);
        ready.open()?;
        loop {
            thread::park();
        }
    })?;
    ready.wait()?;
    let faults = Faults::of_first_device()?;
    faults.add(json!({ "action": "delay", "microseconds": 300_000 }))?;
    let before = device.stats()?.bytes_to_device;
    let pid = target.id()?;
    let mover = fork(|| {
        let mut call = Migrate {
            direction: Direction::ToDevice as u32,
            pid,
            start: range.start,
            end: range.end,
            ..Migrate::default()
        };
        let node = RawNode::open(&nodes::first())?;
        let result = node.call(IOCTL_TYPE, MIGRATE_NR, call.as_mut_bytes());
        ensure!(
            result == Err(Errno::SRCH) && call.next < call.end && call.pages_moved > 0,
            "{result:?}, {} of {} pages moved",
            call.pages_moved,
            range.clone().count() / PAGE
        );
        Ok(())
    })?;
    while device.stats()?.bytes_to_device == before && !mover.has_ended()? {
        thread::yield_now();
    }
    target.signal(Signal::KILL)?;
    target.wait_for_signal(Signal::KILL)?;
    mover.wait()
}

fn wait_until(otherwise: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let limit = Instant::now() + LIMIT;
    while !holds()? {
        ensure!(Instant::now() < limit, "{otherwise}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Waits until a thread of the process sleeps in one of these functions of the kernel.
fn wait_until_in(process: i32, functions: &[&str]) -> Result<()> {
    let result = wait_until("no thread sleeps there", || is_any_in(process, functions));
    result.with_context(|| format!("{functions:?}:\n{}", stacks(process).unwrap_or_default()))
}

/// Whether a thread of the process sleeps in one of these functions of the kernel.
fn is_any_in(process: i32, functions: &[&str]) -> Result<bool> {
    let stacks = stacks(process)?;
    Ok(functions.iter().any(|function| stacks.contains(function)))
}

/// The stacks of the threads of the process in the kernel.
fn stacks(process: i32) -> Result<String> {
    let mut stacks = String::new();
    let folder = format!("/proc/{process}/task");
    for thread in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
        let stack = fs::read_to_string(thread?.path().join("stack"));
        // A thread may have ended meanwhile.
        stacks += &stack.unwrap_or_default();
    }
    Ok(stacks)
}
