// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages that cannot move: each is counted under its reason, stays intact, and does not hold up its neighbours.

use crate::cases::support::pinned::{LongTermPin, PipePin};
use crate::cases::support::prelude::*;
use crate::cases::support::{nodes, proc_self};
use rustix::fs::MemfdFlags;
use rustix::mm::{Advice, MapFlags};
use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::new("migrate/pinned-io-uring-anon-4k", pinned_long_term),
    Case::new("migrate/pinned-io-uring-anon-thp", pinned_huge_page),
    Case::new("migrate/pinned-vmsplice-anon-4k", pinned_in_pipe),
    Case::new("migrate/mlocked-anon-4k", mlocked),
    Case::new("migrate/file-private", file_private),
    Case::new("migrate/file-shared", file_shared),
    Case::new("migrate/shared-anon", shared_anonymous),
    Case::new("migrate/hugetlb", hugetlb),
    Case::new("migrate/special-vdso", special),
    Case::new("migrate/ksm-anon-4k", merged),
    Case::new("migrate/guard-markers-anon-4k", guard_markers),
    Case::new("migrate/other-device-anon-4k", || {
        other_device(Memory::single(40)?)
    }),
    Case::new("migrate/other-device-anon-thp", || {
        other_device(Memory::huge(2)?)
    }),
    Case::new("migrate/device-full-anon-4k", device_full),
    Case::new("migrate/everything-at-once-mixed", everything_at_once),
];

fn pinned_long_term() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(64)?;
    memory.fill(1);
    let pin = LongTermPin::new(&memory, 20..36)?;
    mover
        .to_device(memory.range())?
        .expect(48, &[(SkipReason::Pinned, 16)])?;
    mover.expect_in_system(memory.part(20..36))?;
    drop(pin);
    memory.check(1)?;
    // The kernel drops the pins some time after the ring is closed.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let moved = mover.to_device(memory.range())?;
        if moved.skipped(SkipReason::Pinned) == 0 {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "the pages stay pinned: {moved:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    mover.expect_on_device(memory.range())?;
    memory.check(1)
}

/// One pinned page keeps the huge page that it is a part of.
fn pinned_huge_page() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::huge(3)?;
    memory.fill(1);
    if proc_self::smaps(memory.range().start, "AnonHugePages")? < memory.length() as u64 {
        return Err(skip("the kernel gives no huge pages"));
    }
    let pin = LongTermPin::new(&memory, 600..601)?;
    mover
        .to_device(memory.range())?
        .expect(2 * HUGE / PAGE, &[(SkipReason::Pinned, HUGE / PAGE)])?;
    mover.expect_in_system(memory.part(512..1024))?;
    memory.check(1)?;
    drop(pin);
    Ok(())
}

fn pinned_in_pipe() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(32)?;
    memory.fill(1);
    let pipe = PipePin::new(&memory, 8..16)?;
    mover
        .to_device(memory.range())?
        .expect(24, &[(SkipReason::Pinned, 8)])?;
    ensure!(
        pipe.read_all()? == memory.page_bytes(8..16),
        "the pipe has other bytes than the memory"
    );
    memory.check(1)?;
    mover.to_device(memory.range())?.expect(32, none())?;
    memory.check(1)
}

fn mlocked() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(30)?;
    memory.fill(1);
    memory.lock(10..20)?;
    mover
        .to_device(memory.range())?
        .expect(20, &[(SkipReason::Mlocked, 10)])?;
    mover.expect_residency(memory.range(), 10, 20)?;
    memory.check(1)?;
    mover
        .to_device_with(memory.range(), MigrateFlags::MLOCKED)?
        .expect(30, none())?;
    mover.expect_on_device(memory.range())?;
    memory.check(1)?;
    memory.unlock(10..20)?;
    mover.to_device(memory.range())?.expect(30, none())?;
    memory.check(1)
}

fn file(pages: usize) -> Result<rustix::fd::OwnedFd> {
    let file = rustix::fs::memfd_create("case", MemfdFlags::CLOEXEC).context("memfd_create")?;
    let content: Vec<u8> = (0..pages * PAGE).map(|index| (index / 7) as u8).collect();
    let written = rustix::io::write(&file, &content).context("cannot write the file")?;
    ensure!(written == content.len(), "only {written} bytes written");
    Ok(file)
}

/// What a process wrote to a private mapping of a file is its own memory; the rest is the file's.
fn file_private() -> Result<()> {
    let mover = Mover::open()?;
    let file = file(50)?;
    let mut memory = Memory::file(file.as_fd(), 50, MapFlags::PRIVATE)?;
    memory.touch(0..50);
    memory.fill_pages(10..30, 1);
    let before = memory.bytes().to_vec();
    mover
        .to_device(memory.range())?
        .expect(20, &[(SkipReason::File, 30)])?;
    mover.expect_on_device(memory.part(10..30))?;
    ensure!(
        memory.bytes() == before,
        "the mapping has other bytes than before"
    );
    mover.expect_in_system(memory.part(10..30))?;
    Ok(())
}

fn file_shared() -> Result<()> {
    let mover = Mover::open()?;
    let file = file(50)?;
    let mut memory = Memory::file(file.as_fd(), 50, MapFlags::SHARED)?;
    memory.fill_pages(0..25, 1);
    memory.touch(25..50);
    let before = memory.bytes().to_vec();
    mover
        .to_device(memory.range())?
        .expect(0, &[(SkipReason::File, 50)])?;
    ensure!(
        memory.bytes() == before,
        "the mapping has other bytes than before"
    );
    Ok(())
}

fn shared_anonymous() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::shared(50)?;
    memory.fill(1);
    mover
        .to_device(memory.range())?
        .expect(0, &[(SkipReason::File, 50)])?;
    memory.check(1)
}

fn hugetlb() -> Result<()> {
    const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let mover = Mover::open()?;
    let before = fs::read_to_string(POOL).map_err(|_| skip("the kernel has no hugetlb pages"))?;
    fs::write(POOL, "4")?;
    let result = hugetlb_with_pool(&mover);
    fs::write(POOL, before.trim())?;
    result
}

fn hugetlb_with_pool(mover: &Mover) -> Result<()> {
    let Ok(mut memory) = Memory::hugetlb(2) else {
        return Err(skip("there is no memory for hugetlb pages"));
    };
    memory.fill(1);
    mover
        .to_device(memory.range())?
        .expect(0, &[(SkipReason::Hugetlb, memory.pages())])?;
    memory.check(1)
}

fn special() -> Result<()> {
    let mover = Mover::open()?;
    for name in ["[vdso]", "[vvar]"] {
        let range = proc_self::mapping_named(name)?;
        let pages = ((range.end - range.start) / PAGE as u64) as usize;
        mover
            .to_device(range)?
            .expect(0, &[(SkipReason::Special, pages)])
            .context(name)?;
    }
    // The vdso still works.
    let (first, second) = (Instant::now(), Instant::now());
    ensure!(second >= first, "the clock runs backwards");
    Ok(())
}

fn merged() -> Result<()> {
    const FOLDER: &str = "/sys/kernel/mm/ksm";
    let mover = Mover::open()?;
    if !std::path::Path::new(FOLDER).exists() {
        return Err(skip("the kernel has no KSM"));
    }
    let set = |name: &str, value: &str| fs::write(format!("{FOLDER}/{name}"), value);
    let mut memory = Memory::single(40)?;
    memory.fill(1);
    for page in 11..20 {
        let (first, rest) = memory.bytes_mut().split_at_mut(page * PAGE);
        rest[..PAGE].copy_from_slice(&first[10 * PAGE..11 * PAGE]);
    }
    let before = memory.bytes().to_vec();
    memory.advise(10..20, Advice::LinuxMergeable)?;
    set("sleep_millisecs", "5")?;
    set("pages_to_scan", "1000")?;
    set("run", "1")?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let address = memory.part(10..20).start;
    while proc_self::smaps(address, "KSM")? < 10 * PAGE as u64 {
        ensure!(Instant::now() < deadline, "ksmd does not merge the pages");
        std::thread::sleep(Duration::from_millis(20));
    }
    let moved = mover.to_device(memory.range());
    // 2 undoes all merging.
    set("run", "2")?;
    moved?.expect(30, &[(SkipReason::Ksm, 10)])?;
    ensure!(
        memory.bytes() == before,
        "the memory has other bytes than before"
    );
    Ok(())
}

fn guard_markers() -> Result<()> {
    const GUARD_INSTALL: i32 = 102;
    const GUARD_REMOVE: i32 = 103;
    let mover = Mover::open()?;
    let mut memory = Memory::single(30)?;
    memory.fill(1);
    memory
        .advise_raw(10..15, GUARD_INSTALL)
        .map_err(|error| skip(format!("the kernel has no guard markers: {error}")))?;
    mover
        .to_device(memory.range())?
        .expect(25, &[(SkipReason::Swapped, 5)])?;
    memory.check_pages(0..10, 1)?;
    memory.check_pages(15..30, 1)?;
    memory.advise_raw(10..15, GUARD_REMOVE)?;
    memory.check_zero(10..15)
}

fn other_device(mut memory: Memory) -> Result<()> {
    let first = Mover::open()?;
    let second = Mover::on(&nodes::second()?)?;
    let half = memory.pages() / 2;
    let others = [(SkipReason::OtherDevice, half)];
    memory.fill(1);
    first
        .to_device(memory.part(0..half))?
        .expect(half, none())?;
    second.to_device(memory.range())?.expect(half, &others)?;
    first.expect_residency(memory.range(), 0, half)?;
    second.expect_residency(memory.range(), 0, half)?;
    first.to_system(memory.range())?.expect(half, &others)?;
    second.expect_residency(memory.range(), half, half)?;
    memory.check(1)
}

/// More than the second device has room for: what does not fit stays, and room that becomes free is used.
fn device_full() -> Result<()> {
    let mover = Mover::on(&nodes::second()?)?;
    let room = (mover.device.info()?.memory_bytes / PAGE as u64) as usize;
    if room > 64 << 10 {
        return Err(skip("the second device has more than 256 MiB"));
    }
    let pages = room + 1000;
    let mut memory = Memory::single(pages)?;
    memory.fill(1);
    let moved = mover.call(memory.range(), Direction::ToDevice, MigrateFlags::default())?;
    ensure!(
        moved.skipped(SkipReason::NoDeviceMemory) >= 1000,
        "{pages} pages and room for {room}: {moved:?}"
    );
    ensure!(
        moved.pages >= room * 9 / 10,
        "most of {room} pages of room is unused: {moved:?}"
    );
    mover.expect_residency(memory.range(), pages - moved.pages, moved.pages)?;
    memory.check_pages(0..300, 1)?;
    let resident = mover.resident()?;
    let again = mover.to_device(memory.part(0..300))?;
    ensure!(
        again.pages == 300,
        "room that became free is not used: {again:?}"
    );
    ensure!(
        mover.resident()? >= resident,
        "pages are missing on the device"
    );
    memory.check(1)
}

/// One call over everything that this file and its neighbours have one by one.
fn everything_at_once() -> Result<()> {
    let mover = Mover::open()?;
    let file = file(20)?;
    let mut memory = Memory::single(200)?;
    memory.fill_pages(0..150, 1);
    memory.protect(20..30, rustix::mm::MprotectFlags::READ)?;
    memory.protect(40..50, rustix::mm::MprotectFlags::empty())?;
    memory.unmap(60..70)?;
    memory.lock(80..90)?;
    map_over(&memory, 100..120, file.as_fd())?;
    memory.touch(100..120);
    let contents = memory.page_bytes(100..120).to_vec();
    let pipe = PipePin::new(&memory, 130..140)?;
    mover.to_device(memory.part(0..5))?.expect(5, none())?;
    mover.to_device(memory.range())?.expect(
        150 - 5 - 10 - 10 - 10 - 20 - 10,
        &[
            (SkipReason::Already, 5),
            (SkipReason::NoAccess, 10),
            (SkipReason::Unmapped, 10),
            (SkipReason::Mlocked, 10),
            (SkipReason::File, 20),
            (SkipReason::Pinned, 10),
            (SkipReason::Hole, 50),
        ],
    )?;
    drop(pipe);
    memory.protect(
        40..50,
        rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE,
    )?;
    memory.check_pages(0..60, 1)?;
    memory.check_pages(70..100, 1)?;
    ensure!(
        memory.page_bytes(100..120) == contents,
        "the file's pages have changed"
    );
    memory.check_pages(120..150, 1)?;
    memory.check_zero(150..200)
}

/// Maps a file over some pages.
fn map_over(
    memory: &Memory,
    pages: std::ops::Range<usize>,
    file: rustix::fd::BorrowedFd<'_>,
) -> Result<()> {
    use rustix::mm::{ProtFlags, mmap};
    let length = pages.len() * PAGE;
    let address = memory.at(pages.start * PAGE).as_ptr().cast();
    // SAFETY: The pages belong to the case, and it holds no reference to their bytes.
    unsafe {
        mmap(
            address,
            length,
            ProtFlags::READ,
            MapFlags::SHARED | MapFlags::FIXED,
            file,
            0,
        )
    }
    .context("cannot map a file over the memory")?;
    Ok(())
}
