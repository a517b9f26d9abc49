// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `exit/*`: processes end while pages of theirs are on the device, and nothing is left there.

use super::support::gate::Gate;
use super::support::prelude::*;
use hmm_uapi::client::Error;
use rustix::process::Signal;
use std::time::Duration;

pub(super) const CASES: &[Case] = &[
    Case::new("exit/normal-anon-4k", normal),
    Case::new("exit/killed-anon-4k", killed),
    Case::new("exit/killed-with-threads-anon-4k", killed_with_threads),
    Case::new("exit/exec-anon-4k", exec),
    Case::new("exit/while-moving-anon-4k", while_moving),
    Case::new("exit/mover-killed-anon-4k", mover_killed),
    Case::new("exit/many-processes-anon-4k", many),
    Case::new("exit/core-dump-anon-4k", core_dump),
];

const PAGES: usize = 500;

/// A child with memory on the device, which opens the gate and then does something to its end.
fn holder(
    mut memory: Memory,
    ready: &Gate,
    end: impl FnOnce(&mut Memory) -> Result<()>,
) -> Result<Child> {
    fork(move || {
        memory.fill(1);
        Mover::open()?.all_to_device(memory.range())?;
        ready.open()?;
        end(&mut memory)?;
        // The mapping is there until the very end.
        std::mem::forget(memory);
        Ok(())
    })
}

fn forever() -> Result<()> {
    loop {
        std::thread::park();
    }
}

fn normal() -> Result<()> {
    let mover = Mover::open()?;
    let (ready, go) = (Gate::new()?, Gate::new()?);
    let child = holder(Memory::single(PAGES)?, &ready, |_| go.wait())?;
    ready.wait()?;
    ensure!(
        mover.resident()? == (PAGES * PAGE) as u64,
        "the pages are not resident"
    );
    go.open()?;
    child.wait()?;
    mover.wait_for_resident(0)
}

fn killed() -> Result<()> {
    let mover = Mover::open()?;
    let ready = Gate::new()?;
    let child = holder(Memory::single(PAGES)?, &ready, |_| forever())?;
    ready.wait()?;
    child.signal(Signal::KILL)?;
    child.wait_for_signal(Signal::KILL)?;
    mover.wait_for_resident(0)
}

/// Threads fault pages home at the moment of the end.
fn killed_with_threads() -> Result<()> {
    let mover = Mover::open()?;
    for _ in 0..10 {
        let ready = Gate::new()?;
        let memory = Memory::single(PAGES)?;
        let range = memory.range();
        let child = holder(memory, &ready, |memory| {
            let memory = &*memory;
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(move || {
                        loop {
                            memory.touch(0..PAGES);
                        }
                    });
                }
            });
            Ok(())
        })?;
        ready.wait()?;
        let other = Mover::open()?.of(child.process()?);
        for _ in 0..10 {
            other.call(range.clone(), Direction::ToDevice, MigrateFlags::default())?;
        }
        child.signal(Signal::KILL)?;
        child.wait_for_signal(Signal::KILL)?;
        mover.wait_for_resident(0)?;
    }
    Ok(())
}

fn exec() -> Result<()> {
    use std::os::unix::process::CommandExt;
    let mover = Mover::open()?;
    let ready = Gate::new()?;
    let child = holder(Memory::single(PAGES)?, &ready, |_| {
        let error = std::process::Command::new("/proc/self/exe")
            .args([crate::cases::child::ARGUMENT, "no/such-case"])
            .stderr(std::process::Stdio::null())
            .exec();
        Err(error).context("cannot execute a program")
    })?;
    // The program knows no such case and fails: the child must have got that far.
    let error = child.wait().map_err(|error| error.to_string());
    ensure!(
        error == Err("the child failed with code 1".to_owned()),
        "the child ended otherwise: {error:?}"
    );
    mover.wait_for_resident(0)
}

/// The process is killed while another one moves its memory there and back.
fn while_moving() -> Result<()> {
    let device = Mover::open()?;
    for round in 0..15 {
        let mut memory = Memory::single(PAGES)?;
        let range = memory.range();
        let ready = Gate::new()?;
        let child = fork(|| {
            memory.fill(1);
            ready.open()?;
            loop {
                memory.check(1)?;
            }
        })?;
        ready.wait()?;
        let process = child.process()?;
        std::thread::scope(|scope| -> Result<()> {
            let mover = scope.spawn(|| -> Result<()> {
                let mover = Mover::open()?.of(process);
                loop {
                    for direction in [Direction::ToDevice, Direction::ToSystem] {
                        match mover.call(range.clone(), direction, MigrateFlags::default()) {
                            Ok(_) => {}
                            Err(error) => match error.downcast_ref() {
                                // It has gone, which is what the round is for.
                                Some(Error::NoProcess { .. }) => return Ok(()),
                                _ => return Err(error),
                            },
                        }
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(5 + round * 7));
            child.signal(Signal::KILL)?;
            match mover.join() {
                Ok(result) => result,
                Err(_) => bail!("the mover panicked"),
            }
        })
        .with_context(|| format!("round {round}"))?;
        child.wait_for_signal(Signal::KILL)?;
        device.wait_for_resident(0)?;
    }
    Ok(())
}

/// The process that moves is killed; the one whose memory moves goes on with every byte.
fn mover_killed() -> Result<()> {
    let device = Mover::open()?;
    let mut memory = Memory::single(4 * PAGES)?;
    memory.fill(1);
    let own =
        Process::from_id(std::process::id().cast_signed()).context("a process id is positive")?;
    for round in 0..15 {
        let range = memory.range();
        let ready = Gate::new()?;
        let child = fork(|| {
            let mover = Mover::open()?.of(own);
            ready.open()?;
            loop {
                for direction in [Direction::ToDevice, Direction::ToSystem] {
                    mover.call(range.clone(), direction, MigrateFlags::default())?;
                }
            }
        })?;
        ready.wait()?;
        std::thread::sleep(Duration::from_millis(5 + round * 7));
        child.signal(Signal::KILL)?;
        child.wait_for_signal(Signal::KILL)?;
        memory.check(1).with_context(|| format!("round {round}"))?;
    }
    drop(memory);
    device.wait_for_resident(0)
}

fn many() -> Result<()> {
    const PROCESSES: usize = 12;
    let mover = Mover::open()?;
    let (ready, go) = (Gate::new()?, Gate::new()?);
    let mut children = Vec::new();
    for _ in 0..PROCESSES {
        children.push(holder(Memory::single(PAGES)?, &ready, |_| go.wait())?);
    }
    for _ in 0..PROCESSES {
        ready.wait()?;
    }
    let expected = (PROCESSES * PAGES * PAGE) as u64;
    ensure!(
        mover.resident()? == expected,
        "expected {expected} bytes resident, found {}",
        mover.resident()?
    );
    // Half of them end by themselves and half are killed, at the same time.
    for (number, child) in children.iter().enumerate() {
        if number % 2 == 0 {
            go.open()?;
        } else {
            child.signal(Signal::KILL)?;
        }
    }
    drop(children);
    mover.wait_for_resident(0)
}

/// A dying process reads all of its memory once more.
fn core_dump() -> Result<()> {
    const PATTERN: &str = "/proc/sys/kernel/core_pattern";
    let mover = Mover::open()?;
    let Ok(before) = std::fs::read_to_string(PATTERN) else {
        return Err(skip("the kernel writes no core dumps"));
    };
    let folder = std::env::temp_dir();
    let core = folder.join(format!("hmm-core-{}", std::process::id()));
    std::fs::write(PATTERN, core.as_os_str().as_encoded_bytes())?;
    let ready = Gate::new()?;
    let child = holder(Memory::single(PAGES)?, &ready, |_| {
        let unlimited = rustix::process::Rlimit {
            current: None,
            maximum: None,
        };
        rustix::process::setrlimit(rustix::process::Resource::Core, unlimited)?;
        std::process::abort()
    })?;
    let ended = child.wait_for_signal(Signal::ABORT);
    std::fs::write(PATTERN, before.trim())?;
    ended?;
    let dump = std::fs::read(&core).context("there is no core dump")?;
    std::fs::remove_file(&core)?;
    let mut expected = Memory::single(PAGES)?;
    expected.fill(1);
    // In the dump the memory's pages follow each other and start on a page.
    let found = dump
        .chunks_exact(PAGE)
        .position(|page| page == expected.page_bytes(0..1))
        .context("the memory is not in the core dump")?;
    ensure!(
        dump[found * PAGE..].starts_with(expected.bytes()),
        "the core dump has other bytes than the memory"
    );
    mover.wait_for_resident(0)
}
