// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Which pages of a process are populated, as `PAGEMAP_SCAN` tells.
//!
//! A call costs what is populated, not what is mapped: the kernel passes over page tables that do
//! not exist. So 16 TiB of addresses with a few pages take as long as these pages.

use super::call::{self, PageRegion, ScanArgument};
use super::Process;
use core::ops::Range;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
const PAGE_IS_HUGE: u64 = 1 << 6;
/// Runs that one call asks for.
const RUNS_PER_CALL: usize = 1024;

/// Where the pages of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In system memory.
    Present,
    /// Not in system memory: on a device, or swapped out.
    Away,
}

/// Adjacent pages that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Their addresses.
    pub range: Range<u64>,
    /// Where they are.
    pub place: Place,
    /// Whether they are mapped as huge pages.
    pub is_huge: bool,
}

/// The page tables of a process.
#[derive(Debug)]
pub struct Pagemap {
    file: OwnedFd,
    regions: Vec<PageRegion>,
}

impl Pagemap {
    /// Opens the page tables of a process. They stay those of the program that runs now: after an
    /// `exec` nothing is found in them.
    pub fn open(process: Process) -> Result<Self, Errno> {
        let path = match process {
            Process::Caller => "/proc/self/pagemap".to_owned(),
            Process::Id(pid) => format!("/proc/{pid}/pagemap"),
        };
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self {
            file,
            regions: vec![PageRegion::default(); RUNS_PER_CALL],
        })
    }

    /// Adds the populated anonymous pages of a range, in the order of addresses. Pages of files and
    /// the shared page of zeroes are left out.
    pub fn anonymous(&mut self, range: Range<u64>, found: &mut Vec<PageRun>) -> Result<(), Errno> {
        let mut start = range.start;
        while start < range.end {
            let mut argument = ScanArgument {
                start,
                end: range.end,
                // Neither may be set: inverted, they are zero.
                category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
                category_mask: PAGE_IS_FILE | PAGE_IS_PFNZERO,
                category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
                return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_HUGE,
                ..ScanArgument::default()
            };
            let count = call::pagemap_scan(self.file.as_fd(), &mut argument, &mut self.regions)?;
            found.extend(self.regions.iter().take(count).map(|region| PageRun {
                range: region.start..region.end,
                place: if region.categories & PAGE_IS_PRESENT != 0 {
                    Place::Present
                } else {
                    Place::Away
                },
                is_huge: region.categories & PAGE_IS_HUGE != 0,
            }));
            // A walk that does not get on must not be repeated for ever.
            if argument.walk_end <= start {
                return Err(Errno::INVAL);
            }
            start = argument.walk_end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Pagemap, Place, Process};
    use rustix::mm::{mmap_anonymous, munmap, MapFlags, ProtFlags};

    const PAGE: usize = 4096;
    const VAST: usize = 1 << 40;

    /// Of a terabyte of addresses, exactly the pages that were written are found, wherever they are.
    #[test]
    #[allow(unsafe_code)]
    fn populated_pages_are_found_in_vast_mappings() {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: The kernel chooses the place, so no memory in use is replaced.
        let start = unsafe { mmap_anonymous(core::ptr::null_mut(), VAST, access, flags) }.unwrap();
        let written = [0, 1, 2, 700_000, VAST / PAGE - 1];
        for page in written {
            // SAFETY: The page lies in the mapping, which is private and writable.
            unsafe { start.cast::<u8>().add(page * PAGE).write_volatile(1) };
        }
        let base = start as u64;
        let mut runs = Vec::new();
        let mut pagemap = Pagemap::open(Process::Caller).unwrap();
        let result = pagemap.anonymous(base..base + VAST as u64, &mut runs);
        // SAFETY: The mapping is this test's, and nothing refers to it.
        unsafe { munmap(start, VAST) }.unwrap();
        // Kernels before 6.7 do not have the call.
        if result == Err(rustix::io::Errno::NOTTY) {
            return;
        }
        result.unwrap();
        assert!(runs.iter().all(|run| run.place == Place::Present));
        // A huge page stands for its first write, if the kernel gave one.
        for page in written {
            let address = base + (page * PAGE) as u64;
            let holds = |run: &&super::PageRun| run.range.contains(&address);
            assert_eq!(
                runs.iter().filter(holds).count(),
                1,
                "page {page}: {runs:?}"
            );
        }
        if runs.iter().all(|run| !run.is_huge) {
            let pages: u64 = runs
                .iter()
                .map(|run| (run.range.end - run.range.start) / PAGE as u64)
                .sum();
            assert_eq!(pages, written.len() as u64, "{runs:?}");
        }
    }

    #[test]
    fn a_process_that_does_not_exist_has_none() {
        let nobody = Process::from_id(i32::MAX).unwrap();
        assert!(Pagemap::open(nobody).is_err());
    }
}
