// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! An open `/dev/hmmN`.

use super::{call, Error, Process, ResidencyCounts, ResidencyMap, Skipped};
use crate::{
    Direction, Info, Migrate, MigrateFlags, Residency, Stats, RESIDENCY_PAGES_MAX, UAPI_VERSION,
};
use core::ops::Range;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::path::Path;

/// An open `/dev/hmmN`. It is closed on `exec`.
#[derive(Debug)]
pub struct Device {
    node: OwnedFd,
    page_bytes: u64,
}

/// What to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrateRequest {
    /// Whose memory.
    pub process: Process,
    /// Which addresses; both ends page aligned.
    pub range: Range<u64>,
    /// Where to.
    pub direction: Direction,
    /// How.
    pub flags: MigrateFlags,
}

/// What one MIGRATE call did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MigrateReport {
    /// Address at which the call stopped.
    pub next: u64,
    /// Whether a signal ended the call before the end of the range; the rest starts at `next`.
    pub interrupted: bool,
    /// Pages moved.
    pub pages_moved: u64,
    /// Pages not moved.
    pub skipped: Skipped,
    /// Batches submitted.
    pub batches: u64,
    /// Doorbells rung.
    pub doorbells: u64,
}

impl Device {
    /// Opens a node and asks it whether it speaks this version of the interface.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let node = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(
            |errno| match errno {
                Errno::NOENT | Errno::NODEV | Errno::NXIO => Error::NoDevice { path: path.into() },
                errno => Error::Open {
                    path: path.into(),
                    errno,
                },
            },
        )?;
        let mut info = Info::default();
        call::info(node.as_fd(), &mut info).map_err(|errno| match errno {
            Errno::NODEV => Error::NoDevice { path: path.into() },
            errno => Error::NotHmm {
                path: path.into(),
                errno,
            },
        })?;
        if info.version < UAPI_VERSION {
            return Err(Error::Version {
                path: path.into(),
                found: info.version,
                wanted: UAPI_VERSION,
            });
        }
        if !info.page_bytes.is_power_of_two() {
            return Err(Error::NotHmm {
                path: path.into(),
                errno: Errno::INVAL,
            });
        }
        Ok(Self {
            node,
            page_bytes: u64::from(info.page_bytes),
        })
    }

    /// Size of a page, bytes.
    pub fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    /// What the device is.
    pub fn info(&self) -> Result<Info, Error> {
        let mut info = Info::default();
        call::info(self.node.as_fd(), &mut info).map_err(|e| Error::of_device("INFO", e))?;
        Ok(info)
    }

    /// The device's counters.
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut stats = Stats::default();
        call::stats(self.node.as_fd(), &mut stats).map_err(|e| Error::of_device("STATS", e))?;
        Ok(stats)
    }

    /// Moves what can move of a range and counts the rest. One call: a signal ends it early, which
    /// the report says and which is not an error.
    pub fn migrate(&self, request: &MigrateRequest) -> Result<MigrateReport, Error> {
        let mut argument = Migrate {
            flags: request.flags.0,
            direction: request.direction as u32,
            pid: request.process.raw(),
            start: request.range.start,
            end: request.range.end,
            ..Migrate::default()
        };
        let interrupted = match call::migrate(self.node.as_fd(), &mut argument) {
            Ok(()) => false,
            Err(Errno::INTR) => true,
            Err(errno) => {
                return Err(Error::of_range(
                    "MIGRATE",
                    errno,
                    request.process,
                    request.range.clone(),
                ))
            }
        };
        Ok(MigrateReport {
            next: argument.next,
            interrupted,
            pages_moved: argument.pages_moved,
            skipped: Skipped::new(argument.pages_skipped),
            batches: argument.batches,
            doorbells: argument.doorbells,
        })
    }

    /// Like [`Self::migrate`], and goes on after signals until the end of the range.
    pub fn migrate_all(&self, request: &MigrateRequest) -> Result<MigrateReport, Error> {
        let mut sum = MigrateReport::default();
        let mut rest = request.clone();
        loop {
            let report = self.migrate(&rest)?;
            sum.next = report.next;
            sum.pages_moved += report.pages_moved;
            sum.skipped += report.skipped;
            sum.batches += report.batches;
            sum.doorbells += report.doorbells;
            if !report.interrupted || report.next >= request.range.end {
                return Ok(sum);
            }
            rest.range.start = report.next;
        }
    }

    /// How many pages of a range are where. The range may be of any length.
    pub fn residency(&self, process: Process, range: Range<u64>) -> Result<ResidencyCounts, Error> {
        let mut counts = ResidencyCounts::default();
        for part in self.residency_parts(range) {
            let mut argument = residency_argument(process, &part);
            call::residency_counts(self.node.as_fd(), &mut argument)
                .map_err(|e| Error::of_range("RESIDENCY", e, process, part))?;
            counts += ResidencyCounts::from_reply(&argument);
        }
        Ok(counts)
    }

    /// Where each page of a range is. The range may be of any length; the map takes one byte a
    /// page.
    pub fn residency_map(
        &self,
        process: Process,
        range: Range<u64>,
    ) -> Result<(ResidencyCounts, ResidencyMap), Error> {
        let mut counts = ResidencyCounts::default();
        let mut bytes = Vec::new();
        for part in self.residency_parts(range) {
            let mut argument = residency_argument(process, &part);
            let known = bytes.len();
            let pages = part.end.saturating_sub(part.start) / self.page_bytes;
            // A part has at most `RESIDENCY_PAGES_MAX` pages, which fits in memory.
            bytes.resize(known + pages as usize, 0);
            call::residency_map(
                self.node.as_fd(),
                &mut argument,
                self.page_bytes,
                &mut bytes[known..],
            )
            .map_err(|e| Error::of_range("RESIDENCY", e, process, part))?;
            counts += ResidencyCounts::from_reply(&argument);
        }
        Ok((counts, ResidencyMap::new(bytes)))
    }

    /// The range in pieces that one RESIDENCY call may ask for. A range that is empty or turned
    /// round stays one piece, so that the driver's refusal is what the caller sees.
    fn residency_parts(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let most = RESIDENCY_PAGES_MAX * self.page_bytes;
        let mut rest = Some(range);
        std::iter::from_fn(move || {
            let part = rest.take()?;
            if part.end.saturating_sub(part.start) <= most {
                return Some(part);
            }
            let cut = part.start + most;
            rest = Some(cut..part.end);
            Some(part.start..cut)
        })
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.node.as_fd()
    }
}

fn residency_argument(process: Process, range: &Range<u64>) -> Residency {
    Residency {
        pid: process.raw(),
        start: range.start,
        end: range.end,
        ..Residency::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Device, Error};
    use crate::RESIDENCY_PAGES_MAX;
    use rustix::fs::{Mode, OFlags};

    fn device_on_dev_null() -> Device {
        let node = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).unwrap();
        Device {
            node,
            page_bytes: 4096,
        }
    }

    #[test]
    fn a_missing_node_says_that_the_module_is_not_loaded() {
        let error = Device::open("/dev/hmm-does-not-exist").unwrap_err();
        assert!(matches!(error, Error::NoDevice { .. }));
        assert!(error.to_string().contains("load the virtio_hmm module"));
    }

    #[test]
    fn another_device_is_recognised() {
        let error = Device::open("/dev/null").unwrap_err();
        assert!(matches!(error, Error::NotHmm { .. }), "{error}");
    }

    #[test]
    fn residency_is_asked_for_in_pieces_of_the_limit() {
        let device = device_on_dev_null();
        let most = RESIDENCY_PAGES_MAX * 4096;
        let parts: Vec<_> = device
            .residency_parts(4096..4096 + 2 * most + 8192)
            .collect();
        assert_eq!(
            parts,
            [
                4096..4096 + most,
                4096 + most..4096 + 2 * most,
                4096 + 2 * most..4096 + 2 * most + 8192
            ]
        );
        assert_eq!(device.residency_parts(0..most).count(), 1);
    }

    #[test]
    fn a_range_that_makes_no_sense_reaches_the_driver_as_it_is() {
        let device = device_on_dev_null();
        for (start, end) in [(8192, 4096), (4096, 4096)] {
            assert!(device
                .residency_parts(start..end)
                .eq(std::iter::once(start..end)));
        }
    }
}
