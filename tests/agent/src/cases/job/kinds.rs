// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs on memory of every kind that a process has. What does not move to the device is used where it is.

use crate::cases::support::jobs::{Jobs, crc32c};
use crate::cases::support::prelude::*;
use hmm_uapi::JobStatus;
use hmm_uapi::client::JobRequest;
use rustix::fd::AsFd;
use rustix::mm::{MapFlags, MprotectFlags};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

pub(super) const CASES: &[Case] = &[
    Case::new("job/memory-shared-anon", shared),
    Case::new("job/memory-of-a-private-file", private_file),
    Case::new("job/memory-of-a-shared-file", shared_file),
    Case::new("job/memory-locked-anon-4k", locked),
    Case::new("job/memory-locked-anon-thp", locked_huge),
    Case::new("job/memory-of-hugetlb", hugetlb),
];

const PAGES: usize = 600;
/// What jobs fill memory with, as a word and as a byte.
const FILLED: u64 = 0x5a5a_5a5a_5a5a_5a5a;
const FILLED_BYTE: u8 = 0x5a;

/// Has the device read, fill and copy memory between writes of the CPU. At the end, the first third has the pattern of seed 2
/// and each of the other two a copy of the other's bytes, which are [`FILLED`].
fn use_in_turns(jobs: &Jobs, memory: &mut Memory) -> Result<()> {
    let third = memory.pages() / 3;
    for round in 0..3 {
        memory.fill(1);
        read(jobs, memory).with_context(|| format!("round {round}"))?;
        jobs.done(&JobRequest::fill(memory.part(third..2 * third), FILLED))?;
        let to = memory.part(2 * third..3 * third).start;
        jobs.done(&JobRequest::copy(memory.part(third..2 * third), to))?;
        memory.check_pages(0..third, 1)?;
        memory.fill_pages(0..third, 2);
        read(jobs, memory).with_context(|| format!("round {round}, after the jobs"))?;
        let filled = memory.page_bytes(third..3 * third);
        ensure!(
            filled.iter().all(|&byte| byte == FILLED_BYTE),
            "what the jobs wrote is not there in round {round}"
        );
    }
    Ok(())
}

fn read(jobs: &Jobs, memory: &Memory) -> Result<()> {
    let sum = u64::from(crc32c(memory.bytes()));
    let report = jobs.done(&JobRequest::crc32c(memory.range(), 0))?;
    ensure!(report.result == sum, "the device read something else");
    Ok(())
}

/// The same with advice that it should be on the device, which cannot be followed.
fn use_where_it_is(jobs: &Jobs, memory: &mut Memory) -> Result<()> {
    use_in_turns(jobs, memory)?;
    jobs.move_at_touch(memory.range())?;
    use_in_turns(jobs, memory)?;
    Mover::open()?.expect_in_system(memory.range())
}

/// An addition to memory that other processes may have, too, is refused: the device cannot have it for itself.
fn expect_no_atomics(jobs: &Jobs, memory: &Memory) -> Result<()> {
    let address = memory.address() as u64 + 64;
    jobs.fails(
        "an addition to shared memory",
        &JobRequest::atomic_add(address, 1, 8, 1),
        JobStatus::Forbidden,
        address,
    )?;
    Ok(())
}

/// Parent and child see what a job of either writes.
fn shared() -> Result<()> {
    let jobs = Jobs::open()?;
    let mut memory = Memory::shared(PAGES)?;
    use_where_it_is(&jobs, &mut memory)?;
    expect_no_atomics(&jobs, &memory)?;
    let child = fork(|| {
        let jobs = Jobs::open()?;
        jobs.done(&JobRequest::fill(memory.range(), 0))?;
        Ok(())
    })?;
    child.wait()?;
    memory.check_zero(0..PAGES)
}

/// A file of its own that has no name, with the pattern of seed 1.
fn file() -> Result<File> {
    let file = rustix::fs::memfd_create("job", rustix::fs::MemfdFlags::CLOEXEC)?;
    let file = File::from(file);
    let mut contents = Memory::single(PAGES)?;
    contents.fill(1);
    file.write_all_at(contents.bytes(), 0)?;
    Ok(file)
}

/// What jobs write stays with the process, and the file as it was.
fn private_file() -> Result<()> {
    let (jobs, file) = (Jobs::open()?, file()?);
    let mut before = Memory::single(PAGES)?;
    file.read_exact_at(before.bytes_mut(), 0)?;
    let mut memory = Memory::file(file.as_fd(), PAGES, MapFlags::PRIVATE)?;
    // Pages of the file itself, which a job may read, and of which a write makes a copy.
    read(&jobs, &memory)?;
    jobs.done(&JobRequest::fill(memory.part(0..PAGES / 2), FILLED))?;
    let half = memory.page_bytes(0..PAGES / 2);
    ensure!(
        half.iter().all(|&byte| byte == FILLED_BYTE),
        "what the job wrote is not there"
    );
    memory.check_pages(PAGES / 2..PAGES, 1)?;
    use_in_turns(&jobs, &mut memory)?;
    let mut after = vec![0; PAGES * PAGE];
    file.read_exact_at(&mut after, 0)?;
    ensure!(after == before.bytes(), "the file has changed");
    before.check(1)
}

/// What jobs write is in the file, and what is written to the file is what jobs read.
fn shared_file() -> Result<()> {
    let (jobs, file) = (Jobs::open()?, file()?);
    let mut memory = Memory::file(file.as_fd(), PAGES, MapFlags::SHARED)?;
    read(&jobs, &memory)?;
    use_where_it_is(&jobs, &mut memory)?;
    expect_no_atomics(&jobs, &memory)?;
    let mut contents = vec![0; PAGES * PAGE];
    file.read_exact_at(&mut contents, 0)?;
    ensure!(contents == memory.bytes(), "the file has something else");
    contents.reverse();
    file.write_all_at(&contents, 0)?;
    read(&jobs, &memory)?;
    // Pages beyond the end of the file are no memory.
    file.set_len((PAGES / 2 * PAGE) as u64)?;
    let end = memory.part(PAGES / 2..PAGES);
    jobs.fails(
        "a read beyond the end of a file",
        &JobRequest::crc32c(memory.range(), 0),
        JobStatus::Unmapped,
        end.start,
    )?;
    Ok(())
}

fn locked() -> Result<()> {
    locked_memory(Memory::single(PAGES)?)
}

fn locked_huge() -> Result<()> {
    locked_memory(Memory::huge(2)?)
}

/// Memory that `mlock()` keeps in place is used there, and moves by the same advice when it is not locked any more.
fn locked_memory(mut memory: Memory) -> Result<()> {
    let (jobs, mover) = (Jobs::open()?, Mover::open()?);
    let pages = memory.pages();
    memory.lock(0..pages)?;
    use_where_it_is(&jobs, &mut memory)?;
    memory.unlock(0..pages)?;
    memory.fill(1);
    // The device could access all of it, and has to ask again.
    memory.protect(0..pages, MprotectFlags::READ)?;
    memory.protect(0..pages, MprotectFlags::READ | MprotectFlags::WRITE)?;
    read(&jobs, &memory)?;
    jobs.done(&JobRequest::fill(memory.range(), FILLED))?;
    mover.expect_on_device(memory.range())
}

/// Huge pages of a pool.
fn hugetlb() -> Result<()> {
    const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let before = fs::read_to_string(POOL).map_err(|_| skip("the kernel has no hugetlb pages"))?;
    fs::write(POOL, "4")?;
    let result = (|| {
        let jobs = Jobs::open()?;
        let Ok(mut memory) = Memory::hugetlb(2) else {
            return Err(skip("there is no memory for hugetlb pages"));
        };
        use_where_it_is(&jobs, &mut memory)
    })();
    fs::write(POOL, before)?;
    result
}
