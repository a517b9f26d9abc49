// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `fault/*`: a use by the CPU, by the kernel or by another process brings pages home.

use super::support::gate::Gate;
use super::support::pinned::{LongTermPin, PipePin};
use super::support::prelude::*;
use super::support::{ptrace, random::Random};
use hmm_uapi::client::Advice;
use rustix::fs::MemfdFlags;
use rustix::thread::futex;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::sync::atomic::Ordering;

pub(super) const CASES: &[Case] = &[
    Case::new("fault/read-anon-4k", read),
    Case::new("fault/read-backwards-anon-4k", read_backwards),
    Case::new("fault/read-random-anon-4k", read_random),
    Case::new("fault/fetched-ahead-anon-4k", fetched_ahead).within(120),
    Case::new("fault/not-fetched-ahead-anon-4k", not_fetched_ahead),
    Case::new(
        "fault/fetched-ahead-and-moved-back-anon-4k",
        fetched_and_moved_back,
    )
    .within(120),
    Case::new("fault/write-anon-4k", write),
    Case::new("fault/read-anon-thp", read_huge),
    Case::new("fault/write-anon-thp", write_huge),
    Case::new("fault/counted-anon-4k", counted),
    Case::new("fault/threads-same-page-anon-4k", threads_on_one_page),
    Case::new("fault/threads-many-pages-anon-4k", threads_on_many_pages),
    Case::new("fault/syscall-read-anon-4k", system_call_writes_memory),
    Case::new("fault/syscall-write-anon-4k", system_call_reads_memory),
    Case::new("fault/syscall-path-anon-4k", system_call_reads_path),
    Case::new("fault/process-vm-anon-4k", other_process_by_vm_calls),
    Case::new("fault/ptrace-anon-4k", other_process_by_ptrace),
    Case::new("fault/proc-mem-anon-4k", other_process_by_proc),
    Case::new("fault/futex-anon-4k", futex_word),
    Case::new("fault/pin-io-uring-anon-4k", pin),
    Case::new("fault/pin-vmsplice-anon-4k", pipe),
    Case::new("fault/mlock-anon-4k", lock),
];

/// Memory with the pattern of a seed, on the device.
fn on_device(mover: &Mover, mut memory: Memory, seed: u64) -> Result<Memory> {
    memory.fill(seed);
    mover.all_to_device(memory.range())?;
    Ok(memory)
}

fn read() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(700)?, 1)?;
    memory.check(1)?;
    mover.expect_in_system(memory.range())
}

/// Pages that came home, by faults and altogether, while `work` was done and for as long as it takes all of `memory`.
fn came_home(
    mover: &Mover,
    memory: &Memory,
    work: impl FnOnce() -> Result<()>,
) -> Result<(u64, u64)> {
    let before = mover.device.stats()?;
    work()?;
    // What was fetched ahead of the reader is there, since it was read.
    mover.expect_in_system(memory.range())?;
    let after = mover.device.stats()?;
    let pages = |bytes: u64| bytes / PAGE as u64;
    Ok((
        pages(after.bytes_by_fault - before.bytes_by_fault),
        pages(after.bytes_to_system - before.bytes_to_system),
    ))
}

/// Most of what a long read needs is fetched while it goes on. How much is a race, but never nothing.
fn fetched_ahead() -> Result<()> {
    const PAGES: usize = 96 << 8;
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?, 1)?;
    let (by_fault, _) = came_home(&mover, &memory, || memory.check(1))?;
    ensure!(
        by_fault < PAGES as u64,
        "all of {PAGES} pages came by faults"
    );
    // The same downwards.
    mover.all_to_device(memory.range())?;
    let (by_fault, _) = came_home(&mover, &memory, || {
        (0..PAGES)
            .rev()
            .try_for_each(|page| memory.check_pages(page..page + 1, 1))
    })?;
    ensure!(
        by_fault < PAGES as u64,
        "all of {PAGES} pages came by faults, downwards"
    );
    Ok(())
}

/// Who says how much a fault takes gets no more.
fn not_fetched_ahead() -> Result<()> {
    const PAGES: usize = 16 << 8;
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?, 1)?;
    let advice = Advice {
        window: Some((2 << 20, 2 << 20)),
        ..Advice::default()
    };
    mover
        .device
        .advise(Process::Caller, memory.range(), advice)?;
    let (by_fault, all) = came_home(&mover, &memory, || memory.check(1))?;
    ensure!(
        by_fault == PAGES as u64 && all == by_fault,
        "of {PAGES} pages {by_fault} came by faults, {all} altogether"
    );
    Ok(())
}

/// What is still being fetched for a reader does not undo a request that comes after it.
fn fetched_and_moved_back() -> Result<()> {
    const PAGES: usize = 32 << 8;
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(PAGES)?, 1)?;
    for _ in 0..20 {
        // Up to about half, where the worker is ahead.
        memory.check_pages(0..PAGES / 2, 1)?;
        mover.all_to_device(memory.range())?;
        std::thread::yield_now();
        mover.expect_on_device(memory.range())?;
    }
    memory.check(1)
}

fn read_backwards() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(700)?, 1)?;
    for page in (0..700).rev() {
        memory.check_pages(page..page + 1, 1)?;
    }
    mover.expect_in_system(memory.range())
}

fn read_random() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(700)?, 1)?;
    let mut random = Random::new(2);
    for _ in 0..300 {
        let page = random.below(700);
        memory.check_pages(page..page + 1, 1)?;
        let counts = mover
            .device
            .residency(Process::Caller, memory.part(page..page + 1))?;
        ensure!(
            counts.system_pages == 1,
            "page {page} was read and has {counts:?}"
        );
    }
    memory.check(1)
}

/// A write of a few bytes leaves the rest of the page and the neighbours as they were.
fn write() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(300)?, 1)?;
    let mut expected = memory.bytes().to_vec();
    mover.all_to_device(memory.range())?;
    for page in (0..300).step_by(7) {
        let offset = page * PAGE + (page * 13) % PAGE;
        memory.bytes_mut()[offset] ^= 0xff;
        expected[offset] ^= 0xff;
    }
    ensure!(
        memory.bytes() == expected,
        "a write changed more or less than its byte"
    );
    mover.all_to_device(memory.range())?;
    ensure!(
        memory.bytes() == expected,
        "a written byte was lost on the way"
    );
    Ok(())
}

fn read_huge() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::huge(3)?, 1)?;
    memory.check_pages(800..801, 1)?;
    memory.check(1)?;
    mover.expect_in_system(memory.range())
}

fn write_huge() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::huge(3)?, 1)?;
    for page in [0, 511, 512, 1023, 1200] {
        memory.fill_pages(page..page + 1, 2);
    }
    memory.check_pages(1..511, 1)?;
    memory.check_pages(513..1023, 1)?;
    for page in [0, 511, 512, 1023, 1200] {
        memory.check_pages(page..page + 1, 2)?;
    }
    Ok(())
}

fn counted() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(512)?, 1)?;
    let before = mover.device.stats()?;
    memory.check(1)?;
    let after = mover.device.stats()?;
    let faults = after.cpu_faults - before.cpu_faults;
    ensure!((1..=512).contains(&faults), "{faults} faults for 512 pages");
    ensure!(
        after.cpu_faults_failed == before.cpu_faults_failed,
        "a fault failed"
    );
    for (name, bytes) in [
        (
            "bytes_by_fault",
            after.bytes_by_fault - before.bytes_by_fault,
        ),
        (
            "bytes_to_system",
            after.bytes_to_system - before.bytes_to_system,
        ),
        (
            "resident_bytes",
            before.resident_bytes - after.resident_bytes,
        ),
    ] {
        ensure!(
            bytes == memory.length() as u64,
            "{name} changed by {bytes}, and {} bytes came home",
            memory.length()
        );
    }
    Ok(())
}

fn threads_on_one_page() -> Result<()> {
    const THREADS: usize = 8;
    const ROUNDS: u32 = 150;
    let mover = Mover::open()?;
    let mut memory = Memory::single(1)?;
    memory.fill(0);
    let first = memory.word(0).load(Ordering::Relaxed);
    let barrier = Barrier::new(THREADS + 1);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    barrier.wait();
                    memory.word(0).fetch_add(1, Ordering::Relaxed);
                    barrier.wait();
                }
            });
        }
        let mut result = Ok(());
        for _ in 0..ROUNDS {
            if result.is_ok() {
                result = mover.to_device(memory.range()).map(drop);
            }
            // The threads take part in every round, also after a failure.
            barrier.wait();
            barrier.wait();
        }
        result
    })?;
    let counted = memory.word(0).load(Ordering::Relaxed).wrapping_sub(first);
    let expected = THREADS as u32 * ROUNDS;
    ensure!(
        counted == expected,
        "{expected} additions, {counted} counted"
    );
    Ok(())
}

fn threads_on_many_pages() -> Result<()> {
    const THREADS: usize = 6;
    const PAGES: usize = 600;
    let mover = Mover::open()?;
    for round in 1..=4 {
        let memory = on_device(&mover, Memory::single(PAGES)?, round)?;
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let memory = &memory;
                    scope.spawn(move || {
                        let mut random = Random::new(thread as u64 + 1);
                        for _ in 0..PAGES {
                            let page = random.below(PAGES);
                            memory.check_pages(page..page + 1, round)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(result) => result,
                    Err(_) => bail!("a thread panicked"),
                })
                .collect()
        });
        results.into_iter().collect::<Result<()>>()?;
        memory.check(round)?;
    }
    Ok(())
}

fn system_call_writes_memory() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = on_device(&mover, Memory::single(20)?, 1)?;
    let file = std::fs::File::from(rustix::fs::memfd_create("case", MemfdFlags::CLOEXEC)?);
    let content: Vec<u8> = (0..5 * PAGE).map(|index| (index % 251) as u8).collect();
    file.write_all_at(&content, 0)?;
    file.read_exact_at(&mut memory.bytes_mut()[3 * PAGE + 100..8 * PAGE + 100], 0)?;
    ensure!(
        memory.bytes()[3 * PAGE + 100..8 * PAGE + 100] == content,
        "read() put other bytes there"
    );
    memory.check_pages(0..3, 1)?;
    memory.check_pages(9..20, 1)
}

fn system_call_reads_memory() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(20)?, 1)?;
    let expected = memory.bytes()[50..12 * PAGE + 50].to_vec();
    mover.all_to_device(memory.range())?;
    let (mut reader, mut writer) = UnixStream::pair()?;
    let mut found = vec![0; expected.len()];
    std::thread::scope(|scope| -> Result<()> {
        let sender = scope.spawn(|| writer.write_all(&memory.bytes()[50..12 * PAGE + 50]));
        reader.read_exact(&mut found)?;
        match sender.join() {
            Ok(result) => Ok(result?),
            Err(_) => bail!("the sender panicked"),
        }
    })?;
    ensure!(found == expected, "write() took other bytes");
    memory.check(1)
}

/// A path is read byte by byte by the kernel, with faults in the middle of a system call.
fn system_call_reads_path() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(2)?;
    let path = b"/proc/self/status\0";
    let start = PAGE - 6;
    memory.bytes_mut()[start..start + path.len()].copy_from_slice(path);
    mover.all_to_device(memory.range())?;
    let path = std::ffi::CStr::from_bytes_until_nul(&memory.bytes()[start..])?;
    let file = rustix::fs::open(path, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
    file.context("cannot open a path whose name was on the device")?;
    Ok(())
}

/// A child with memory that is on the device, waiting until the gate opens; then it checks its memory.
fn holder(
    memory: &mut Memory,
    seed: u64,
    expected: impl FnOnce(&Memory) -> Result<()>,
) -> Result<(Child, Gate)> {
    let (ready, go) = (Gate::new()?, Gate::new()?);
    let range = memory.range();
    let child = fork(|| {
        memory.fill(seed);
        ready.open()?;
        go.wait()?;
        expected(memory)
    })?;
    ready.wait()?;
    Mover::open()?.of(child.process()?).all_to_device(range)?;
    Ok((child, go))
}

fn other_process_by_vm_calls() -> Result<()> {
    let mut memory = Memory::single(40)?;
    let mut expected = Memory::single(40)?;
    expected.fill(3);
    let range = memory.range();
    let (child, go) = holder(&mut memory, 3, |memory| {
        memory.check_pages(0..10, 3)?;
        memory.check_pages(10..20, 4)?;
        memory.check_pages(20..40, 3)
    })?;
    let mut copy = vec![0; 40 * PAGE];
    ptrace::read(child.id()?, range.start, &mut copy)?;
    ensure!(
        copy == expected.bytes(),
        "process_vm_readv() gave other bytes"
    );
    let mover = Mover::open()?.of(child.process()?);
    mover.expect_in_system(range.clone())?;
    mover.all_to_device(range.clone())?;
    expected.fill_pages(10..20, 4);
    ptrace::write(
        child.id()?,
        range.start + 10 * PAGE as u64,
        expected.page_bytes(10..20),
    )?;
    go.open()?;
    child.wait()
}

fn other_process_by_ptrace() -> Result<()> {
    let mut memory = Memory::single(4)?;
    let mut expected = Memory::single(4)?;
    expected.fill(3);
    let range = memory.range();
    let (child, go) = holder(&mut memory, 3, |memory| {
        memory.check_pages(0..2, 3)?;
        ensure!(
            memory.bytes()[2 * PAGE..2 * PAGE + 8] == [7; 8],
            "POKEDATA was lost"
        );
        memory.check_pages(3..4, 3)
    })?;
    let tracer = ptrace::Tracer::attach(child.id()?)?;
    let word = tracer.peek(range.start + 24)?;
    ensure!(
        word.to_ne_bytes() == expected.bytes()[24..32],
        "PEEKDATA gave {word:#x}"
    );
    tracer.poke(range.start + 2 * PAGE as u64, u64::from_ne_bytes([7; 8]))?;
    tracer.detach()?;
    go.open()?;
    child.wait()
}

fn other_process_by_proc() -> Result<()> {
    let mut memory = Memory::single(20)?;
    let mut expected = Memory::single(20)?;
    expected.fill(3);
    let range = memory.range();
    let (child, go) = holder(&mut memory, 3, |memory| memory.check(3))?;
    let file = std::fs::File::open(format!("/proc/{}/mem", child.id()?))?;
    let mut copy = vec![0; 20 * PAGE];
    file.read_exact_at(&mut copy, range.start)?;
    ensure!(copy == expected.bytes(), "/proc/PID/mem gave other bytes");
    go.open()?;
    child.wait()
}

/// Threads wait for each other on a word that goes to the device all the time.
fn futex_word() -> Result<()> {
    const ROUNDS: u32 = 200;
    let mover = Mover::open()?;
    let mut memory = Memory::single(1)?;
    memory.bytes_mut().fill(0);
    let turn = |mine: u32| -> Result<()> {
        let word = memory.word(64);
        for _ in 0..ROUNDS {
            loop {
                let value = word.load(Ordering::Acquire);
                if value % 2 == mine {
                    break;
                }
                match futex::wait(word, futex::Flags::empty(), value, None) {
                    Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(errno).context("futex wait"),
                }
            }
            word.fetch_add(1, Ordering::Release);
            futex::wake(word, futex::Flags::empty(), 1).context("futex wake")?;
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let players = [scope.spawn(|| turn(0)), scope.spawn(|| turn(1))];
        let mut moved = 0;
        while players.iter().any(|player| !player.is_finished()) {
            moved += mover
                .call(memory.range(), Direction::ToDevice, MigrateFlags::default())?
                .pages;
        }
        for player in players {
            match player.join() {
                Ok(result) => result?,
                Err(_) => bail!("a player panicked"),
            }
        }
        ensure!(moved > 0, "the word never moved");
        Ok(())
    })?;
    let turns = memory.word(64).load(Ordering::Relaxed);
    ensure!(turns == 2 * ROUNDS, "{turns} turns of {}", 2 * ROUNDS);
    Ok(())
}

/// A pin for DMA brings pages home first: nobody can point DMA of another device at this one's memory.
fn pin() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(30)?, 1)?;
    let pin = LongTermPin::new(&memory, 5..25)?;
    mover.expect_in_system(memory.part(5..25))?;
    memory.check(1)?;
    let moved = mover.to_device(memory.range())?;
    ensure!(
        moved.skipped(SkipReason::Pinned) == 20,
        "pages pinned after they came home: {moved:?}"
    );
    drop(pin);
    memory.check(1)
}

fn pipe() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(10)?, 1)?;
    let pipe = PipePin::new(&memory, 2..8)?;
    let mut buffer = vec![0; 6 * PAGE];
    let mut read = 0;
    while read < buffer.len() {
        let length = pipe.read(&mut buffer[read..])?;
        ensure!(length > 0, "the pipe has ended after {read} bytes");
        read += length;
    }
    ensure!(
        buffer == memory.page_bytes(2..8),
        "the pipe has other bytes"
    );
    memory.check(1)
}

/// Locking memory brings it home, and from then on it stays.
fn lock() -> Result<()> {
    let mover = Mover::open()?;
    let memory = on_device(&mover, Memory::single(30)?, 1)?;
    memory.lock(0..30)?;
    mover.expect_in_system(memory.range())?;
    mover
        .to_device(memory.range())?
        .expect(0, &[(SkipReason::Mlocked, 30)])?;
    memory.check(1)
}
