// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs of the device on the memory of the case.

use super::nodes;
use crate::cases::case::skip;
use anyhow::{Context, Result, ensure};
use hmm_uapi::client::{Advice, Device, Error, JobId, JobReport, JobRequest, Process};
use hmm_uapi::{JobState, JobStatus, PreferredSide};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// Only a hang takes this long, also under emulation.
const LIMIT: Duration = Duration::from_secs(100);
/// Negotiated features, as INFO has them.
const CONTEXTS: u64 = 1 << 10;
const PROGRAMS: u64 = 1 << 11;

/// An open device that does jobs.
#[derive(Debug)]
pub(in crate::cases) struct Jobs {
    /// The device.
    pub(in crate::cases) device: Device,
}

impl Jobs {
    /// The first device; the case is skipped if it does no jobs.
    pub(in crate::cases) fn open() -> Result<Self> {
        Self::with(&nodes::first(), CONTEXTS)
    }

    /// The same with a device that also runs programs.
    pub(in crate::cases) fn of_programs() -> Result<Self> {
        Self::with(&nodes::first(), CONTEXTS | PROGRAMS)
    }

    /// Another device.
    pub(in crate::cases) fn on(node: &Path) -> Result<Self> {
        Self::with(node, CONTEXTS)
    }

    fn with(node: &Path, features: u64) -> Result<Self> {
        let device = Device::open(node)?;
        if device.info()?.features & features != features {
            return Err(skip("the device does no such jobs"));
        }
        Ok(Self { device })
    }

    /// Memory of the case moves to this device by the first page fault that the device has there.
    pub(in crate::cases) fn move_at_touch(&self, range: Range<u64>) -> Result<()> {
        let advice = Advice {
            side: Some(PreferredSide::Device),
            touches: Some(1),
            ..Advice::default()
        };
        Ok(self.device.advise(Process::Caller, range, advice)?)
    }

    /// Begins a job.
    pub(in crate::cases) fn begin(&self, request: &JobRequest<'_>) -> Result<JobId, Error> {
        // SAFETY: Cases give jobs mappings of their own, which hold plain bytes, and no reference to what a job
        // writes is in use until the job has ended or the bytes are atomics.
        unsafe { self.device.begin_job(request) }
    }

    /// Runs a job to its end.
    pub(in crate::cases) fn run(&self, request: &JobRequest<'_>) -> Result<JobReport> {
        let id = self.begin(request)?;
        self.wait(id)
    }

    /// Waits for the end of a job.
    pub(in crate::cases) fn wait(&self, id: JobId) -> Result<JobReport> {
        let report = self.device.wait_job(id, Some(LIMIT))?;
        ensure!(
            report.state != JobState::Running,
            "a job did not end in {LIMIT:?}"
        );
        Ok(report)
    }

    /// Runs a job, which must do all it has to do.
    pub(in crate::cases) fn done(&self, request: &JobRequest<'_>) -> Result<JobReport> {
        expect_done(self.run(request)?).with_context(|| format!("{request:x?}"))
    }

    /// Runs a job, which must end with this status at this address.
    pub(in crate::cases) fn fails(
        &self,
        what: &str,
        request: &JobRequest<'_>,
        status: JobStatus,
        address: u64,
    ) -> Result<JobReport> {
        let report = self.run(request).context(what.to_owned())?;
        ensure!(
            report.state == JobState::Failed
                && report.status == Some(status)
                && report.error.map(|errno| errno.raw_os_error())
                    == i32::try_from(status.errno()).ok()
                && report.address == address,
            "{what}: expected {} at {address:#x}, found {report:x?}",
            status.name()
        );
        Ok(report)
    }
}

/// Checks that a job did all it had to do.
pub(in crate::cases) fn expect_done(report: JobReport) -> Result<JobReport> {
    ensure!(
        report.state == JobState::Done
            && report.error.is_none()
            && report.status == Some(JobStatus::Ok)
            && report.address == 0,
        "a job was to be done: {report:x?}"
    );
    Ok(report)
}

/// The bytes of system memory around a page fault that the driver maps along, if they are there.
const WINDOW: u64 = 64 << 10;
/// What the driver serves by one page fault at most, bytes.
const BLOCK: u64 = 2 << 20;

/// How many page faults a job has that accesses all of a range, from its start to its end or on the device: one for each
/// block of 2 MiB.
pub(in crate::cases) fn blocks(range: &Range<u64>) -> u64 {
    parts(range, BLOCK)
}

/// How many page faults a job has that accesses single pages of system memory here and there, until it has accessed all
/// of the range.
pub(in crate::cases) fn windows(range: &Range<u64>) -> u64 {
    parts(range, WINDOW)
}

fn parts(range: &Range<u64>, bytes: u64) -> u64 {
    range.end.div_ceil(bytes) - range.start / bytes
}

/// The CRC-32C of some bytes.
pub(in crate::cases) fn crc32c(bytes: &[u8]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|index| {
        (0..8).fold(index as u32, |crc, _| match crc & 1 {
            0 => crc >> 1,
            _ => crc >> 1 ^ 0x82f6_3b78,
        })
    });
    !bytes.iter().fold(!0, |crc: u32, byte| {
        crc >> 8 ^ table[usize::from(crc as u8 ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use super::{blocks, crc32c, windows};

    #[test]
    fn a_part_of_a_block_counts() {
        let mib = |mib: u64| mib << 20;
        assert_eq!(blocks(&(mib(2)..mib(6))), 2);
        assert_eq!(blocks(&(mib(3)..mib(6) + 1)), 3);
        assert_eq!(windows(&(0..mib(1))), 16);
        assert_eq!(windows(&(4096..8192)), 1);
    }

    #[test]
    fn the_crc_is_that_of_the_standard() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
