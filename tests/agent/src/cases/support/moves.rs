// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Moves whose every page is accounted for.

use super::memory::PAGE;
use super::nodes;
use anyhow::{Context, Result, ensure};
use hmm_uapi::client::{Device, MigrateReport, MigrateRequest, Process, Skipped};
use hmm_uapi::{Direction, MigrateFlags, PageState, SkipReason};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

/// Retries for pages that another task has locked.
const TRIES: usize = 50;
/// Retries for pages with extra references, which mostly stay.
const PIN_TRIES: usize = 3;

/// Moves memory of one process and checks that the reply accounts for every page.
#[derive(Debug)]
pub(in crate::cases) struct Mover {
    /// The open device.
    pub(in crate::cases) device: Device,
    process: Process,
}

/// What a move did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cases) struct Moved {
    /// Pages moved.
    pub(in crate::cases) pages: usize,
    /// Pages that did not move.
    pub(in crate::cases) skipped: Skipped,
    /// Batches submitted.
    pub(in crate::cases) batches: u64,
    /// Doorbells rung.
    pub(in crate::cases) doorbells: u64,
}

impl Moved {
    /// Pages skipped for this reason.
    pub(in crate::cases) fn skipped(&self, reason: SkipReason) -> usize {
        self.skipped.get(reason) as usize
    }

    /// Checks that exactly these pages moved and were skipped, and none for any other reason.
    pub(in crate::cases) fn expect(
        &self,
        pages: usize,
        skipped: &[(SkipReason, usize)],
    ) -> Result<()> {
        let found: Vec<_> = self.skipped.named().collect();
        let mut expected: Vec<_> = skipped
            .iter()
            .filter(|&&(_, pages)| pages > 0)
            .map(|&(reason, pages)| (reason.name(), pages as u64))
            .collect();
        expected.sort_by_key(|&(name, _)| found.iter().position(|&(other, _)| other == name));
        ensure!(
            self.pages == pages && found == expected,
            "expected {pages} pages moved, {expected:?} skipped; found {} moved, {found:?} skipped",
            self.pages
        );
        Ok(())
    }
}

/// No page skipped, for [`Moved::expect`].
pub(in crate::cases) fn none() -> &'static [(SkipReason, usize)] {
    &[]
}

impl Mover {
    /// Moves memory of the calling process with the first device.
    pub(in crate::cases) fn open() -> Result<Self> {
        Self::on(&nodes::first())
    }

    /// The same with another device.
    pub(in crate::cases) fn on(node: &Path) -> Result<Self> {
        Ok(Self {
            device: Device::open(node)?,
            process: Process::Caller,
        })
    }

    /// Moves memory of another process from now on.
    pub(in crate::cases) fn of(mut self, process: Process) -> Self {
        self.process = process;
        self
    }

    /// One MIGRATE call.
    pub(in crate::cases) fn call(
        &self,
        range: Range<u64>,
        direction: Direction,
        flags: MigrateFlags,
    ) -> Result<Moved> {
        let report = self.device.migrate(&MigrateRequest {
            process: self.process,
            range: range.clone(),
            direction,
            flags,
        })?;
        ensure!(
            !report.interrupted && report.next == range.end,
            "the call ended at {:#x} (interrupted: {}), and the range at {:#x}",
            report.next,
            report.interrupted,
            range.end
        );
        accounted(&report, &range)
    }

    /// Moves to the device: one call, with retries for pages that another task had locked.
    pub(in crate::cases) fn to_device(&self, range: Range<u64>) -> Result<Moved> {
        self.patiently(range, Direction::ToDevice, MigrateFlags::default())
    }

    /// Moves to the device with flags.
    pub(in crate::cases) fn to_device_with(
        &self,
        range: Range<u64>,
        flags: MigrateFlags,
    ) -> Result<Moved> {
        self.patiently(range, Direction::ToDevice, flags)
    }

    /// Moves to system memory, likewise.
    pub(in crate::cases) fn to_system(&self, range: Range<u64>) -> Result<Moved> {
        self.patiently(range, Direction::ToSystem, MigrateFlags::default())
    }

    /// Moves everything of a range of touched pages to the device.
    pub(in crate::cases) fn all_to_device(&self, range: Range<u64>) -> Result<()> {
        let pages = pages_of(&range);
        let moved = self.to_device(range.clone())?;
        ensure!(
            moved.pages + moved.skipped(SkipReason::Already) == pages,
            "not all of {pages} pages went to the device: {moved:?}"
        );
        self.expect_on_device(range)
    }

    /// Pages that are locked, isolated or counted too often at this moment may move at the next: every process that
    /// is reading /proc, every reclaim or compaction does that. All other skips are final, and so is what the first
    /// call said about them.
    fn patiently(
        &self,
        range: Range<u64>,
        direction: Direction,
        flags: MigrateFlags,
    ) -> Result<Moved> {
        let mut sum = self.call(range.clone(), direction, flags)?;
        let mut known = sum;
        for tried in 1..TRIES {
            // The kernel itself holds a page now and then, for as long as a batch of its own takes to fill.
            let pinned = known.skipped(SkipReason::Pinned);
            if passing(&known) == 0 && (pinned == 0 || tried > PIN_TRIES) {
                break;
            }
            std::thread::yield_now();
            known = self.call(range.clone(), direction, flags)?;
            sum.pages += known.pages;
            sum.batches += known.batches;
            sum.doorbells += known.doorbells;
            // Pages that the earlier calls moved are now skipped as being there already.
            let mut skipped = [0; hmm_uapi::SKIP_REASONS];
            for reason in SkipReason::ALL {
                skipped[reason as usize] = known.skipped.get(reason);
            }
            let already = &mut skipped[SkipReason::Already as usize];
            *already = already.saturating_sub((sum.pages - known.pages) as u64);
            sum.skipped = Skipped::new(skipped);
        }
        Ok(sum)
    }

    /// Checks that all pages of a range are on the device.
    pub(in crate::cases) fn expect_on_device(&self, range: Range<u64>) -> Result<()> {
        self.expect_residency(range.clone(), 0, pages_of(&range))
    }

    /// Checks that all pages of a range are in system memory.
    pub(in crate::cases) fn expect_in_system(&self, range: Range<u64>) -> Result<()> {
        self.expect_residency(range.clone(), pages_of(&range), 0)
    }

    /// Checks how many pages of a range are where; the rest is on neither side.
    pub(in crate::cases) fn expect_residency(
        &self,
        range: Range<u64>,
        system: usize,
        device: usize,
    ) -> Result<()> {
        let counts = self.device.residency(self.process, range.clone())?;
        ensure!(
            counts.total() == pages_of(&range) as u64,
            "a range of {} pages has {counts:?}",
            pages_of(&range)
        );
        ensure!(
            counts.system_pages == system as u64 && counts.device_pages == device as u64,
            "expected {system} pages in system memory and {device} on the device, found {counts:?}"
        );
        Ok(())
    }

    /// Where each page of a range is.
    pub(in crate::cases) fn map(&self, range: Range<u64>) -> Result<Vec<PageState>> {
        let (_, map) = self.device.residency_map(self.process, range)?;
        Ok(map.states().collect())
    }

    /// Device memory in use, bytes.
    pub(in crate::cases) fn resident(&self) -> Result<u64> {
        Ok(self.device.stats().context("STATS")?.resident_bytes)
    }

    /// Waits until so much device memory is in use, bytes, and no more. What a process had is free when the last reference to
    /// its address space goes, which can be one of a worker that serves its device fault, a little after the process has ended.
    pub(in crate::cases) fn wait_for_resident(&self, most: u64) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let resident = self.resident()?;
            if resident <= most {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{resident} bytes are left on the device, where {most} should be"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn passing(moved: &Moved) -> usize {
    moved.skipped(SkipReason::Busy) + moved.skipped(SkipReason::LostRace)
}

fn accounted(report: &MigrateReport, range: &Range<u64>) -> Result<Moved> {
    let pages = pages_of(range) as u64;
    let sum = report.pages_moved + report.skipped.total();
    ensure!(
        sum == pages,
        "a range of {pages} pages, and {sum} accounted for: {report:?}"
    );
    ensure!(
        report.skipped.unknown() == 0,
        "skipped for a reason that does not exist: {report:?}"
    );
    Ok(Moved {
        pages: report.pages_moved as usize,
        skipped: report.skipped,
        batches: report.batches,
        doorbells: report.doorbells,
    })
}

fn pages_of(range: &Range<u64>) -> usize {
    ((range.end - range.start) / PAGE as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::{Moved, none};
    use hmm_uapi::client::Skipped;
    use hmm_uapi::{SKIP_REASONS, SkipReason};

    fn moved(pages: usize, reasons: &[(SkipReason, u64)]) -> Moved {
        let mut skipped = [0; SKIP_REASONS];
        for &(reason, pages) in reasons {
            skipped[reason as usize] = pages;
        }
        Moved {
            pages,
            skipped: Skipped::new(skipped),
            batches: 0,
            doorbells: 0,
        }
    }

    #[test]
    fn expectations_are_exact() {
        let found = moved(3, &[(SkipReason::Hole, 2), (SkipReason::File, 1)]);
        let right = [(SkipReason::File, 1), (SkipReason::Hole, 2)];
        found.expect(3, &right).unwrap();
        found
            .expect(
                3,
                &[
                    (SkipReason::File, 1),
                    (SkipReason::Hole, 2),
                    (SkipReason::Ksm, 0),
                ],
            )
            .unwrap();
        assert!(found.expect(2, &right).is_err());
        assert!(found.expect(3, &right[..1]).is_err());
        assert!(found.expect(3, none()).is_err());
        assert!(
            found
                .expect(3, &[(SkipReason::File, 2), (SkipReason::Hole, 1)])
                .is_err()
        );
        assert!(moved(3, &[]).expect(3, &[(SkipReason::Pinned, 1)]).is_err());
    }
}
