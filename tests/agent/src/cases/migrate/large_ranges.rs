// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Ranges that are far larger than what is mapped, or populated: what is empty costs next to nothing.

use crate::cases::support::prelude::*;
use hmm_uapi::PrefetchState;
use hmm_uapi::client::{Advice, MigrateRequest, PrefetchRequest};
use rustix::mm::{Advice as MemoryAdvice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ops::Range;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

pub(super) const CASES: &[Case] = &[
    Case::new("migrate/every-address-anon-4k", every_address),
    Case::new("migrate/sparse-anon-4k", sparse),
];

const PAGES: usize = 600;
/// The largest range that an ioctl can be given.
const EVERYTHING: Range<u64> = 0..0xffff_ffff_ffff_f000;
/// Mapped, bytes: 4 TiB, a million page tables.
const MAPPED: usize = 4 << 40;
/// A driver that looks at every page of what is mapped takes minutes.
const LIMIT: Duration = Duration::from_secs(60);

/// All addresses that there are, of which few are mapped. A child's, since all of its memory moves.
fn every_address() -> Result<()> {
    fork(|| {
        let mover = Mover::open()?;
        let mut memory = Memory::single(PAGES)?;
        memory.fill(1);
        let pages = (EVERYTHING.end >> 12) as usize;
        for direction in [Direction::ToDevice, Direction::ToSystem] {
            let report = mover.device.migrate_all(&MigrateRequest {
                process: Process::Caller,
                range: EVERYTHING,
                direction,
                flags: MigrateFlags::default(),
            })?;
            let counted =
                report.pages_moved + report.skipped.named().map(|(_, pages)| pages).sum::<u64>();
            ensure!(
                counted as usize >= pages,
                "{counted} of {pages} pages are accounted for: {report:?}"
            );
            ensure!(report.pages_moved as usize >= PAGES, "{report:?}");
        }
        memory.check(1)?;
        mover.all_to_device(memory.range())?;
        let evicted = mover.device.evict(Process::Caller, EVERYTHING)?;
        ensure!(evicted.bytes_evicted >= (PAGES as u64) << 12, "{evicted:?}");
        memory.check(1)
    })?
    .wait()
}

/// A few pages at both ends and in the middle of a large mapping.
fn sparse() -> Result<()> {
    let mapping = Sparse::new()?;
    let places = [0, MAPPED / 2, MAPPED - (PAGES << 12)];
    let byte = |place: usize, page: usize| (place / (PAGES << 12) + page) as u8;
    for place in places {
        for page in 0..PAGES {
            mapping.write(place + (page << 12), byte(place, page))?;
        }
    }
    let mover = Mover::open()?;
    let range = mapping.range();
    let started = Instant::now();
    let moved = mover.to_device(range.clone())?;
    moved.expect(
        places.len() * PAGES,
        &[(SkipReason::Hole, (MAPPED >> 12) - places.len() * PAGES)],
    )?;
    let keep = Advice {
        keep: Some(true),
        ..Advice::default()
    };
    mover.device.advise(Process::Caller, range.clone(), keep)?;
    for place in places {
        let start = range.start + place as u64;
        mover.expect_on_device(start..start + ((PAGES as u64) << 12))?;
    }
    let id = mover.device.prefetch(&PrefetchRequest {
        process: Process::Caller,
        range: range.clone(),
        direction: Some(Direction::ToSystem),
        flags: MigrateFlags::default(),
    })?;
    let report = mover.device.wait(id, Some(LIMIT))?;
    ensure!(
        report.state == PrefetchState::Done && report.pages_moved as usize == places.len() * PAGES,
        "{report:?}"
    );
    ensure!(
        started.elapsed() < LIMIT,
        "{:?} for {MAPPED} bytes that are hardly populated",
        started.elapsed()
    );
    for place in places {
        for page in 0..PAGES {
            let found = mapping.read(place + (page << 12))?;
            ensure!(
                found == byte(place, page),
                "page {page} at {place:#x}: {found}"
            );
        }
    }
    Ok(())
}

/// A mapping of [`MAPPED`] bytes for which no memory is reserved.
struct Sparse {
    start: *mut u8,
}

impl Sparse {
    fn new() -> Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: A new mapping at a place that the kernel chooses touches no other.
        let start = unsafe { mmap_anonymous(null_mut(), MAPPED, access, flags) }
            .context("cannot map 4 TiB")?;
        let mapping = Self {
            start: start.cast(),
        };
        // SAFETY: The advice changes no byte of the mapping.
        unsafe { madvise(start, MAPPED, MemoryAdvice::LinuxNoHugepage) }
            .context("cannot refuse huge pages")?;
        Ok(mapping)
    }

    fn range(&self) -> Range<u64> {
        let start = self.start as u64;
        start..start + MAPPED as u64
    }

    fn write(&self, at: usize, byte: u8) -> Result<()> {
        ensure!(at < MAPPED, "outside");
        // SAFETY: `at` is within the mapping, which nothing else refers to.
        unsafe { self.start.add(at).write_volatile(byte) };
        Ok(())
    }

    fn read(&self, at: usize) -> Result<u8> {
        ensure!(at < MAPPED, "outside");
        // SAFETY: As above.
        Ok(unsafe { self.start.add(at).read_volatile() })
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        // SAFETY: The mapping is this one's own and goes with it.
        let _ = unsafe { munmap(self.start.cast(), MAPPED) };
    }
}
