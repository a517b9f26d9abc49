// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! System calls use memory that is on the device.

use super::on_device;
use crate::cases::support::pinned::{LongTermPin, PipePin};
use crate::cases::support::prelude::*;
use rustix::fs::MemfdFlags;
use rustix::thread::futex;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

pub(super) const CASES: &[Case] = &[
    Case::new("fault/syscall-read-anon-4k", system_call_writes_memory),
    Case::new("fault/syscall-write-anon-4k", system_call_reads_memory),
    Case::new("fault/syscall-path-anon-4k", system_call_reads_path),
    Case::new("fault/futex-anon-4k", futex_word),
    Case::new("fault/pin-io-uring-anon-4k", pin),
    Case::new("fault/pin-vmsplice-anon-4k", pipe),
    Case::new("fault/mlock-anon-4k", lock),
];

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

/// A pin for DMA migrates pages back first: another device cannot do DMA to this one's memory.
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
    ensure!(
        pipe.read_all()? == memory.page_bytes(2..8),
        "the pipe has other bytes"
    );
    memory.check(1)
}

/// Locking memory migrates it back, and from then on it stays in system memory.
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
