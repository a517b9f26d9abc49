// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `account/*`: a page on the device is still the process's, and counted as such; system memory is free of it.

use super::support::cgroup::MemoryCgroup;
use super::support::gate::Gate;
use super::support::prelude::*;
use super::support::proc_self;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

pub(super) const CASES: &[Case] = &[
    Case::new("account/rss-anon-4k", rss),
    Case::new("account/cgroup-charge-anon-4k", cgroup_charge),
    Case::new("account/cgroup-limit-anon-4k", cgroup_limit),
    Case::new("account/pagemap-anon-4k", pagemap),
    Case::new("account/resident-and-peak-anon-4k", resident_and_peak),
    Case::new("account/system-memory-anon-4k", system_memory),
    Case::new("account/fdinfo-drm-keys", fdinfo),
];

/// 32 MiB: far more than what the kernel's per-processor counters may be behind.
const PAGES: usize = 8 << 10;
const BYTES: u64 = (PAGES * PAGE) as u64;
const TOLERANCE: u64 = 2 << 20;

fn expect_about(what: &str, found: u64, expected: u64) -> Result<()> {
    ensure!(
        found.abs_diff(expected) <= TOLERANCE,
        "{what}: expected about {expected} bytes, found {found}"
    );
    Ok(())
}

fn rss() -> Result<()> {
    let own = std::process::id().cast_signed();
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    let empty = proc_self::status(own, "RssAnon")?;
    memory.fill(1);
    let filled = proc_self::status(own, "RssAnon")?;
    expect_about("RssAnon of touched memory", filled - empty, BYTES)?;
    let resident = proc_self::status(own, "VmRSS")?;
    mover.all_to_device(memory.range())?;
    expect_about(
        "RssAnon on the device",
        proc_self::status(own, "RssAnon")?,
        filled,
    )?;
    expect_about(
        "VmRSS on the device",
        proc_self::status(own, "VmRSS")?,
        resident,
    )?;
    memory.check(1)?;
    expect_about(
        "RssAnon back home",
        proc_self::status(own, "RssAnon")?,
        filled,
    )?;
    mover.all_to_device(memory.range())?;
    memory.unmap(0..PAGES)?;
    expect_about(
        "RssAnon after unmapping",
        proc_self::status(own, "RssAnon")?,
        empty,
    )
}

fn cgroup_charge() -> Result<()> {
    let cgroup = MemoryCgroup::new("charge")?;
    let child = fork(|| {
        cgroup.enter()?;
        let mover = Mover::open()?;
        let mut memory = Memory::single(PAGES)?;
        let empty = cgroup.current()?;
        memory.fill(1);
        let filled = cgroup.current()?;
        expect_about("the charge of touched memory", filled - empty, BYTES)?;
        mover.all_to_device(memory.range())?;
        expect_about("the charge on the device", cgroup.current()?, filled)?;
        memory.check(1)?;
        expect_about("the charge back home", cgroup.current()?, filled)?;
        mover.all_to_device(memory.range())?;
        memory.unmap(0..PAGES)?;
        expect_about("the charge after unmapping", cgroup.current()?, empty)?;
        let mut memory = Memory::single(PAGES)?;
        memory.fill(2);
        mover.all_to_device(memory.range())?;
        std::mem::forget(memory);
        Ok(())
    })?;
    child.wait()?;
    expect_about("the charge after the process's end", cgroup.current()?, 0)
}

/// The device is no way around a limit, and coming home takes no new charge.
fn cgroup_limit() -> Result<()> {
    let cgroup = MemoryCgroup::new("limit")?;
    let full = Gate::new()?;
    let child = fork(|| {
        cgroup.enter()?;
        let mover = Mover::open()?;
        let mut memory = Memory::single(PAGES)?;
        memory.fill(1);
        mover.all_to_device(memory.range())?;
        cgroup.limit(cgroup.current()? + TOLERANCE)?;
        // There and back at the limit.
        memory.check(1)?;
        mover.all_to_device(memory.range())?;
        memory.check(1)?;
        mover.all_to_device(memory.range())?;
        full.open()?;
        let mut more = Memory::single(PAGES)?;
        more.fill(2);
        bail!("twice the memory fits under the limit")
    })?;
    full.wait()?;
    child.wait_for_signal(rustix::process::Signal::KILL)?;
    ensure!(
        cgroup.events("oom_kill")? > 0,
        "the process was killed, and not for its memory"
    );
    Ok(())
}

/// For the page tables a page on the device is not present, as one in swap.
fn pagemap() -> Result<()> {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    let mover = Mover::open()?;
    let mut memory = Memory::single(20)?;
    memory.fill(1);
    mover.to_device(memory.part(5..15))?.expect(10, none())?;
    let file = std::fs::File::open("/proc/self/pagemap")?;
    for page in 0..20 {
        let mut entry = [0; 8];
        file.read_exact_at(&mut entry, ((memory.address() / PAGE + page) * 8) as u64)?;
        let entry = u64::from_ne_bytes(entry) & (PRESENT | SWAPPED);
        let expected = if (5..15).contains(&page) {
            SWAPPED
        } else {
            PRESENT
        };
        ensure!(
            entry == expected,
            "page {page}: expected {expected:#x}, found {entry:#x}"
        );
    }
    memory.check(1)
}

/// What fdinfo says of an open node is what LIMIT and STATS say.
fn fdinfo() -> Result<()> {
    let mover = Mover::open()?;
    let path = format!("/proc/self/fdinfo/{}", mover.device.as_fd().as_raw_fd());
    let field = |name: &str| -> Result<String> {
        let text = std::fs::read_to_string(&path)?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        Ok(value
            .with_context(|| format!("{name} is not in {text}"))?
            .to_owned())
    };
    ensure!(
        field("drm-driver")? == "virtio_hmm",
        "the driver is {}",
        field("drm-driver")?
    );
    ensure!(
        field("drm-resident-vram")? == "0 KiB",
        "nothing has moved, and {} are resident",
        field("drm-resident-vram")?
    );
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    let expected = format!("{} KiB", BYTES >> 10);
    for name in [
        "drm-total-vram",
        "drm-resident-vram",
        "virtio_hmm-device-resident",
    ] {
        ensure!(
            field(name)? == expected,
            "{name} is {} and not {expected}",
            field(name)?
        );
    }
    // Another file of the same process is of the same client.
    let other = Mover::open()?;
    let other = format!("/proc/self/fdinfo/{}", other.device.as_fd().as_raw_fd());
    let client = field("drm-client-id")?;
    ensure!(
        std::fs::read_to_string(other)?.contains(&format!("drm-client-id:\t{client}\n")),
        "the second file is not of client {client}"
    );
    let evicted = mover.device.evict_bytes(BYTES)?;
    let resident = mover.device.limit(Process::Caller)?.resident_bytes;
    ensure!(
        field("drm-resident-vram")? == format!("{} KiB", resident >> 10),
        "{evicted:?}: LIMIT says {resident} bytes, and fdinfo {}",
        field("drm-resident-vram")?
    );
    let stats = mover.device.stats()?;
    ensure!(
        field("virtio_hmm-device-evicted")? == format!("{} KiB", stats.bytes_by_eviction >> 10),
        "{stats:?}, and fdinfo {}",
        field("virtio_hmm-device-evicted")?
    );
    memory.check(1)
}

fn resident_and_peak() -> Result<()> {
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    let stats = mover.device.stats()?;
    ensure!(
        stats.resident_bytes == BYTES,
        "{BYTES} bytes moved, {} resident",
        stats.resident_bytes
    );
    ensure!(
        stats.peak_resident_bytes >= BYTES,
        "{BYTES} bytes are resident, and the highest was {}",
        stats.peak_resident_bytes
    );
    memory.check(1)?;
    let later = mover.device.stats()?;
    ensure!(
        later.resident_bytes == 0,
        "{} bytes are still resident",
        later.resident_bytes
    );
    ensure!(
        later.peak_resident_bytes >= stats.peak_resident_bytes,
        "the highest value has become lower"
    );
    Ok(())
}

/// What moved away makes room.
fn system_memory() -> Result<()> {
    let mover = Mover::open()?;
    // The driver's own needs are met by now.
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    memory.check(1)?;
    let before = free_memory()?;
    mover.all_to_device(memory.range())?;
    let after = free_memory()?;
    let won = after.saturating_sub(before);
    ensure!(
        won >= BYTES * 3 / 4,
        "{BYTES} bytes moved to the device, and only {won} became free"
    );
    memory.check(1)
}

/// Free memory of the system, bytes: what the zones have, and what the processors keep for themselves.
fn free_memory() -> Result<u64> {
    let mut pages = 0;
    for line in std::fs::read_to_string("/proc/zoneinfo")?.lines() {
        let mut words = line.split_whitespace();
        let count = match (words.next(), words.next(), words.next()) {
            (Some("pages"), Some("free"), Some(count)) | (Some("count:"), Some(count), None) => {
                count
            }
            _ => continue,
        };
        pages += count
            .parse::<u64>()
            .with_context(|| format!("no number in '{line}'"))?;
    }
    ensure!(pages > 0, "/proc/zoneinfo has no free pages");
    Ok(pages * PAGE as u64)
}
