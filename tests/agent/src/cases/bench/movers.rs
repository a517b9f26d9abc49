// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The drivers that move memory, behind one trait.

use super::test_hmm::TestHmm;
use crate::cases::support::memory::Memory;
use crate::cases::support::nodes;
use anyhow::{Context, Result, ensure};
use hmm_control::bench::Side;
use hmm_uapi::client::{Device, MigrateRequest, Process};
use hmm_uapi::{Direction, MigrateFlags};

/// Of a hundred pages so many have to move: others may hold a page for a moment.
const MOVED_PERCENT: u64 = 99;

/// A driver that moves memory.
pub(super) enum Moving {
    /// Our driver.
    Driver(Device),
    /// The kernel's own.
    TestHmm(TestHmm),
}

/// What the driver counts; all zero for the kernel's own, which counts nothing.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) doorbells: u64,
    pub(super) cpu_faults: u64,
}

impl Moving {
    /// Gets ready to move `bytes` bytes.
    pub(super) fn open(side: Side, bytes: usize) -> Result<Self> {
        Ok(match side {
            Side::Driver => Self::Driver(Device::open(nodes::first())?),
            Side::NoCopy => Self::Driver(Device::open(nodes::second()?)?),
            Side::TestHmm => Self::TestHmm(TestHmm::open(bytes)?),
        })
    }

    /// Moves all of it to the device.
    pub(super) fn to_device(&self, memory: &Memory) -> Result<()> {
        match self {
            Self::Driver(device) => migrate(device, memory, Direction::ToDevice),
            Self::TestHmm(device) => device.to_device(memory),
        }
    }

    /// Moves what is left on the device to system memory. Of what came home before, nothing is said.
    pub(super) fn to_system(&self, memory: &Memory) -> Result<()> {
        match self {
            Self::Driver(device) => migrate(device, memory, Direction::ToSystem),
            Self::TestHmm(device) => device.to_system(memory),
        }
    }

    /// What the kernel's own driver takes to copy the contents to the caller, nanoseconds; ours does not do it.
    pub(super) fn read_back(&self, memory: &Memory) -> Result<u64> {
        match self {
            Self::Driver(_) => Ok(0),
            Self::TestHmm(device) => device.read(memory),
        }
    }

    /// The counters now.
    pub(super) fn counters(&self) -> Result<Counters> {
        match self {
            Self::Driver(device) => {
                let stats = device.stats()?;
                Ok(Counters {
                    doorbells: stats.doorbells,
                    cpu_faults: stats.cpu_faults,
                })
            }
            Self::TestHmm(_) => Ok(Counters::default()),
        }
    }
}

fn migrate(device: &Device, memory: &Memory, direction: Direction) -> Result<()> {
    let report = device
        .migrate_all(&MigrateRequest {
            process: Process::Caller,
            range: memory.range(),
            direction,
            flags: MigrateFlags::default(),
        })
        .context("the driver")?;
    let pages = memory.pages() as u64;
    let already = report.skipped.get(hmm_uapi::SkipReason::Already);
    ensure!(
        (report.pages_moved + already) * 100 >= pages * MOVED_PERCENT,
        "{} of {pages} pages moved; skipped: {:?}",
        report.pages_moved,
        report.skipped.named().collect::<Vec<_>>()
    );
    Ok(())
}
