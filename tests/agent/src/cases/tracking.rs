// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `tracking/*`: programs that have the kernel track writes, or move pages, find all of them right, also where the kernel
//! does not do so for device pages (`docs/kernel-faults.md`).

use super::support::driver;
use super::support::ioctl::RawNode;
use super::support::prelude::*;
use super::support::userfaultfd::{self, Userfaultfd};
use rustix::fs::{Mode, OFlags};
use rustix::mm::MprotectFlags;
use std::fs::File;
use std::os::unix::fs::FileExt;

pub(super) const CASES: &[Case] = &[
    Case::new("tracking/soft-dirty-anon-4k", || {
        soft_dirty(Memory::single(PAGES)?, Then::Nothing)
    }),
    Case::new("tracking/soft-dirty-anon-thp", || {
        soft_dirty(Memory::huge(1)?, Then::Nothing)
    }),
    Case::new("tracking/soft-dirty-fork-anon-4k", || {
        soft_dirty(Memory::single(PAGES)?, Then::Fork)
    }),
    Case::new("tracking/soft-dirty-protect-anon-4k", || {
        soft_dirty(Memory::single(PAGES)?, Then::Protect)
    }),
    Case::new("tracking/populate-anon-4k", || {
        populate(Memory::single(PAGES)?)
    }),
    Case::new("tracking/populate-anon-thp", || populate(Memory::huge(1)?)),
    Case::new("tracking/zero-page-anon-4k", zero_page),
    Case::new("tracking/soft-dirty-switched-off-anon-4k", switched_off),
    Case::new("tracking/pagemap-scan-switched-off-anon-4k", || {
        let _driver = driver::Reloaded::with("track_writes=0")?;
        expect_fault(pagemap_scan(false), "counts as written: true")
    }),
    Case::new("tracking/uffd-move-switched-off-anon-4k", || {
        let _driver = driver::Reloaded::with("track_writes=0")?;
        let (from, to) = (Memory::single(PAGES)?, Memory::single(PAGES)?);
        expect_fault(uffd_move(from, to, PAGE), "cannot move")
    }),
    Case::new("tracking/pagemap-scan-anon-4k", || pagemap_scan(true)),
    Case::new("tracking/uffd-move-anon-4k", || {
        uffd_move(Memory::single(PAGES)?, Memory::single(PAGES)?, PAGE)
    }),
    Case::new("tracking/uffd-move-anon-thp", || {
        uffd_move(Memory::huge(1)?, Memory::huge(1)?, HUGE)
    }),
];

const PAGES: usize = 256;
/// Bit of an entry of pagemap: the page was written since "4" was written to `clear_refs`.
const SOFT_DIRTY: u64 = 1 << 55;

fn pagemap_file() -> Result<File> {
    File::open("/proc/self/pagemap").context("cannot open /proc/self/pagemap")
}

/// Which pages are soft-dirty.
fn dirty_pages(memory: &Memory) -> Result<Vec<bool>> {
    pages_with(memory, SOFT_DIRTY)
}

/// Which pages have a bit in pagemap.
fn pages_with(memory: &Memory, bit: u64) -> Result<Vec<bool>> {
    let mut entries = vec![0; memory.pages() * 8];
    pagemap_file()?.read_exact_at(&mut entries, (memory.address() / PAGE * 8) as u64)?;
    Ok(entries
        .chunks_exact(8)
        .map(|entry| u64::from_ne_bytes(entry.try_into().unwrap_or_default()) & bit != 0)
        .collect())
}

fn begin_to_track() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "4").context("cannot clear soft-dirty bits")
}

/// Writes a byte of every fourth page.
fn write_some(memory: &Memory) {
    for page in (0..memory.pages()).step_by(4) {
        memory
            .word(page * PAGE)
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// How many pages of those that [`write_some`] writes are not soft-dirty, and how many others are.
fn wrong(memory: &Memory) -> Result<(usize, usize)> {
    let dirty = dirty_pages(memory)?;
    let count = |is_written: bool| {
        (dirty.iter().enumerate())
            .filter(|&(page, &dirty)| (page % 4 == 0) == is_written && dirty != is_written)
            .count()
    };
    Ok((count(true), count(false)))
}

fn expect_tracked_here() -> Result<()> {
    let mut memory = Memory::single(1)?;
    memory.fill(1);
    match dirty_pages(&memory)?.first() {
        Some(true) => Ok(()),
        _ => Err(skip("this kernel does not track soft-dirty pages")),
    }
}

/// What is done to pages that were written and are on the device again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    Fork,
    Protect,
}

/// All pages that are written after tracking began are soft-dirty, wherever they were then, and no others.
fn soft_dirty(mut memory: Memory, then: Then) -> Result<()> {
    expect_tracked_here()?;
    let mover = Mover::open()?;
    let all = 0..memory.pages();
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    begin_to_track()?;
    if memory.pages() == PAGES {
        mover.expect_in_system(memory.range())?;
        ensure!(
            wrong(&memory)? == (PAGES / 4, 0),
            "pages are soft-dirty though tracking just began: {:?}",
            wrong(&memory)?
        );
    }
    if then == Then::Nothing {
        // In the meantime they may go there and back.
        mover.all_to_device(memory.range())?;
    }
    write_some(&memory);
    if then != Then::Nothing {
        mover.all_to_device(memory.range())?;
    }
    match then {
        Then::Nothing => {}
        Then::Fork => fork(|| Ok(()))?.wait()?,
        Then::Protect => memory.protect(all.clone(), MprotectFlags::READ)?,
    }
    let (missed, others) = wrong(&memory)?;
    if then == Then::Protect {
        memory.protect(all, MprotectFlags::READ | MprotectFlags::WRITE)?;
    }
    ensure!(missed == 0, "{missed} writes were not noticed");
    ensure!(
        others == 0 || memory.pages() != PAGES,
        "{others} pages are soft-dirty that were not written"
    );
    Ok(())
}

/// Whether the kernel has the project's patches.
fn is_fixed() -> bool {
    let name = rustix::system::uname();
    name.release().to_string_lossy().ends_with("-hmm-fixed")
}

/// Without the driver's help, a kernel without the patches does something wrong, which the error tells.
fn expect_fault(result: Result<()>, sign: &str) -> Result<()> {
    match result {
        Ok(()) if !is_fixed() => bail!("the kernel's fault did not show: is it gone?"),
        Err(error) if !is_fixed() && format!("{error:#}").contains(sign) => Ok(()),
        other => other,
    }
}

/// The module can be told to leave the kernel's fault as it is.
fn switched_off() -> Result<()> {
    expect_tracked_here()?;
    let _driver = driver::Reloaded::with("track_writes=0")?;
    let mover = Mover::open()?;
    let mut memory = Memory::single(PAGES)?;
    memory.fill(1);
    mover.all_to_device(memory.range())?;
    begin_to_track()?;
    mover.expect_on_device(memory.range())?;
    write_some(&memory);
    let (missed, _) = wrong(&memory)?;
    let expected = if is_fixed() { 0 } else { PAGES / 4 };
    ensure!(
        missed == expected,
        "without the driver's help {missed} writes were not noticed, expected {expected}: is this fault of the kernel gone?"
    );
    Ok(())
}

/// Writes to memory that was never touched are noticed, also if a device page was wanted in its place.
fn populate(memory: Memory) -> Result<()> {
    expect_tracked_here()?;
    let mover = Mover::open()?;
    begin_to_track()?;
    mover.call(memory.range(), Direction::ToDevice, MigrateFlags::POPULATE)?;
    write_some(&memory);
    let (missed, _) = wrong(&memory)?;
    ensure!(missed == 0, "{missed} writes were not noticed");
    Ok(())
}

/// Bit of an entry of pagemap: userfaultfd protects the page from writes.
const PROTECTED: u64 = 1 << 57;

/// A zero page that userfaultfd protects from writes stays protected, also if a device page was wanted in its place.
fn zero_page() -> Result<()> {
    let mover = Mover::open()?;
    let uffd = Userfaultfd::new(0)?;
    let memory = Memory::single(PAGES)?;
    memory.touch(0..PAGES);
    uffd.register(memory.range(), userfaultfd::MODE_WP)?;
    uffd.protect(memory.range(), true)?;
    let protected = || pages_with(&memory, PROTECTED);
    ensure!(
        protected()?.iter().all(|&is| is),
        "the zero page was not protected at all"
    );
    mover.call(memory.range(), Direction::ToDevice, MigrateFlags::POPULATE)?;
    let lost = protected()?.iter().filter(|&&is| !is).count();
    ensure!(lost == 0, "{lost} pages lost their protection");
    Ok(())
}

fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Which pages were written since they were protected, by `PAGEMAP_SCAN`, which protects them again.
fn scan(memory: &Memory) -> Result<Vec<bool>> {
    const PROTECT: u64 = 1 << 0;
    const CHECK_ASYNC: u64 = 1 << 1;
    const IS_WRITTEN: u64 = 1 << 1;
    let regions = vec![0_u64; 3 * memory.pages()];
    let (start, end) = (memory.range().start, memory.range().end);
    let node: RawNode = rustix::fs::open(
        "/proc/self/pagemap",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?
    .into();
    let mut argument = bytes_of(&[
        96,
        PROTECT | CHECK_ASYNC,
        start,
        end,
        0,
        regions.as_ptr().expose_provenance() as u64,
        memory.pages() as u64,
        0,
        0,
        IS_WRITTEN,
        0,
        IS_WRITTEN,
    ]);
    node.call(b'f', 16, &mut argument)
        .map_err(|_| skip("this kernel has no PAGEMAP_SCAN"))?;
    let regions = std::hint::black_box(regions);
    let mut written = vec![false; memory.pages()];
    for region in regions.chunks_exact(3).filter(|region| region[1] != 0) {
        let first = (region[0] - start) as usize / PAGE;
        let behind = (region[1] - start) as usize / PAGE;
        written[first..behind].fill(true);
    }
    Ok(written)
}

/// `PAGEMAP_SCAN` tells exactly the pages that were written, wherever they were when it protected them.
fn pagemap_scan(comes_back: bool) -> Result<()> {
    let mover = Mover::open()?;
    let uffd = Userfaultfd::new(userfaultfd::WP_ASYNC | userfaultfd::WP_UNPOPULATED)?;
    let mut memory = Memory::single(PAGES)?;
    uffd.register(memory.range(), userfaultfd::MODE_WP)?;
    for moved_after in [false, true] {
        memory.fill(1);
        mover.all_to_device(memory.range())?;
        scan(&memory)?;
        if comes_back {
            mover.expect_in_system(memory.range())?;
        }
        if moved_after {
            mover.all_to_device(memory.range())?;
        }
        write_some(&memory);
        memory.touch(0..PAGES);
        let written = scan(&memory)?;
        for (page, &is_written) in written.iter().enumerate() {
            ensure!(
                is_written == (page % 4 == 0),
                "page {page} counts as written: {is_written}; moved after the scan: {moved_after}"
            );
        }
    }
    Ok(())
}

/// `UFFDIO_MOVE` moves pages that went to the device.
fn uffd_move(mut from: Memory, to: Memory, step: usize) -> Result<()> {
    let mover = Mover::open()?;
    let uffd = Userfaultfd::new(userfaultfd::MOVE)?;
    from.fill(1);
    mover.all_to_device(from.range())?;
    uffd.register(to.range(), userfaultfd::MODE_MISSING)?;
    for offset in (0..from.length()).step_by(step) {
        let (source, destination) = (from.address() + offset, to.address() + offset);
        uffd.move_pages(destination as u64, source as u64, step as u64)
            .with_context(|| format!("cannot move {step} bytes at {offset}"))?;
    }
    to.check(1)
}
