// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where a program's private anonymous pages are.

use super::pace::{BLOCK_BYTES, BlockId, PAGE_BYTES, PageSet, Seen};
use crate::maps::{self, Mapping};
use anyhow::{Context, bail};
use hmm_uapi::client::{PageRun, Pagemap, Place, Process};
use rustix::io::Errno;
use std::ops::Range;

/// The populated anonymous pages of a process that may be moved, in the order of addresses. None if
/// the process has ended.
pub(crate) fn populated(pid: i32) -> anyhow::Result<Vec<PageRun>> {
    // A process that has ended has no files, or one without a line.
    let (Some(process), Ok(mappings)) = (Process::from_id(pid), maps::of_process(pid)) else {
        return Ok(Vec::new());
    };
    let mut pagemap = match Pagemap::open(process) {
        Ok(pagemap) => pagemap,
        Err(Errno::NOENT | Errno::SRCH) => return Ok(Vec::new()),
        Err(errno) => return Err(errno).context("cannot open the page tables of a process"),
    };
    let mut runs = Vec::new();
    for mapping in mappings
        .iter()
        .filter(|m| Mapping::may_hold_private_memory(m))
    {
        match pagemap.anonymous(mapping.range.clone(), &mut runs) {
            Ok(()) => {}
            Err(Errno::SRCH) => return Ok(Vec::new()),
            Err(Errno::NOTTY) => {
                bail!("this kernel has no PAGEMAP_SCAN: Linux 6.7 is the first with it")
            }
            Err(errno) => return Err(errno).context("cannot ask which pages are populated"),
        }
    }
    Ok(runs)
}

/// The blocks that have the pages of these runs, which must be in the order of addresses.
pub(super) fn blocks(pid: i32, runs: &[PageRun], found: &mut Vec<Seen>) {
    let first = found.len();
    for run in runs {
        let mut start = run.range.start;
        while start < run.range.end {
            let address = start / BLOCK_BYTES * BLOCK_BYTES;
            let end = run.range.end.min(address + BLOCK_BYTES);
            let id = BlockId { pid, address };
            if found[first..].last().is_none_or(|last| last.id != id) {
                found.push(Seen {
                    id,
                    present: PageSet::default(),
                    away: PageSet::default(),
                    is_huge: run.is_huge,
                });
            }
            if let Some(seen) = found.last_mut() {
                // Both lie in one block, whose pages fit in 32 bits.
                let index = |at: u64| ((at - address) / PAGE_BYTES) as u32;
                match run.place {
                    Place::Present => seen.present.add(index(start)..index(end)),
                    Place::Away => seen.away.add(index(start)..index(end)),
                }
                seen.is_huge &= run.is_huge;
            }
            start = end;
        }
    }
}

/// The ranges that have all pages in system memory among these runs. Small gaps are covered, because
/// a call costs more than they do; a range has at most `most` bytes, unless one run has more.
pub(super) fn present(runs: &[PageRun], most: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for run in runs.iter().filter(|run| run.place == Place::Present) {
        let mut rest = run.range.clone();
        match ranges.last_mut() {
            Some(last)
                if rest.start.saturating_sub(last.end) <= BLOCK_BYTES
                    && rest.end - last.start <= most =>
            {
                last.end = rest.end;
            }
            _ => {
                while rest.end - rest.start > most {
                    let cut = rest.start + most;
                    ranges.push(rest.start..cut);
                    rest.start = cut;
                }
                ranges.push(rest);
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::{blocks, present};
    use crate::run::pace::{BLOCK_BYTES, PageSet};
    use hmm_uapi::client::{PageRun, Place};

    const PAGE: u64 = 4096;

    fn run(start: u64, end: u64, place: Place) -> PageRun {
        PageRun {
            range: start * PAGE..end * PAGE,
            place,
            is_huge: false,
        }
    }

    fn set(start: u32, end: u32) -> PageSet {
        let mut set = PageSet::default();
        set.add(start..end);
        set
    }

    #[test]
    fn runs_are_cut_at_blocks_and_collected_in_them() {
        let runs = [
            run(510, 1030, Place::Present),
            run(1030, 1031, Place::Away),
            run(5120, 5121, Place::Away),
        ];
        let mut found = Vec::new();
        blocks(7, &runs, &mut found);
        let summary: Vec<_> = (found.iter())
            .map(|seen| (seen.id.address / BLOCK_BYTES, seen.present, seen.away))
            .collect();
        let none = PageSet::default();
        assert_eq!(
            summary,
            [
                (0, set(510, 512), none),
                (1, set(0, 512), none),
                (2, set(0, 6), set(6, 7)),
                (10, none, set(0, 1)),
            ]
        );
        // Another process's block at the same address is another block.
        blocks(8, &runs[2..], &mut found);
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn ranges_cover_what_is_present_and_no_vast_gap() {
        let runs = [
            run(0, 10, Place::Present),
            run(10, 400, Place::Away),
            run(400, 410, Place::Present),
            run(1 << 30, (1 << 30) + 1, Place::Present),
            run(1 << 31, (1 << 31) + 40_000, Place::Present),
        ];
        let ranges: Vec<_> = (present(&runs, 16_384 * PAGE).into_iter())
            .map(|range| (range.start / PAGE, range.end / PAGE))
            .collect();
        assert_eq!(
            ranges,
            [
                (0, 410),
                (1 << 30, (1 << 30) + 1),
                (1 << 31, (1 << 31) + 16_384),
                ((1 << 31) + 16_384, (1 << 31) + 32_768),
                ((1 << 31) + 32_768, (1 << 31) + 40_000),
            ]
        );
    }
}
