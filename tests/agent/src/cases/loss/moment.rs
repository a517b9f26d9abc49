// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is going on when a device is lost.

use super::contents::Reader;
use super::trial::{Trial, counter, moved, wait_for_more};
use crate::cases::support::jobs::Jobs;
use crate::cases::support::prelude::*;
use hmm_uapi::JobState;
use hmm_uapi::client::{Error, JobId, JobRequest};
use serde_json::Value;

/// What goes on when the device is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Idle,
    /// A batch to the device, of which nothing was copied.
    ToDeviceBeforeCopy,
    /// A batch to the device that was copied, and not answered.
    ToDeviceAfterCopy,
    ToSystemBeforeCopy,
    ToSystemAfterCopy,
    CpuFaultBeforeCopy,
    CpuFaultAfterCopy,
    DeviceFault,
    JobRunning,
    Eviction,
    Unbind,
    Fork,
    ExitOfOwner,
}

/// What goes on beside the case, and ends once the device is back or gone.
#[derive(Debug, Default)]
pub(super) struct Ongoing {
    children: Vec<Child>,
    job: Option<(Jobs, JobId)>,
}

impl Ongoing {
    fn of(child: Child) -> Self {
        Self {
            children: vec![child],
            job: None,
        }
    }

    /// Waits for the end.
    pub(super) fn end(self) -> Result<()> {
        for child in self.children {
            child.wait()?;
        }
        if let Some((jobs, id)) = self.job {
            let report = jobs.wait(id)?;
            ensure!(
                report.state == JobState::Failed,
                "a job of a lost device ended with {report:x?}"
            );
        }
        Ok(())
    }
}

impl Moment {
    /// Loses the device at this moment. The first half of `memory` is on the device, and the second in the system; all of
    /// it has the bytes of seed 1, and may be lost for good if `may_be_lost`.
    pub(super) fn lose(self, trial: &Trial, memory: &Memory, may_be_lost: bool) -> Result<Ongoing> {
        let half = memory.pages() / 2;
        let read = move || -> Result<()> {
            Reader::new()?.check(memory, 0..2 * half, 1, may_be_lost)?;
            Ok(())
        };
        match self {
            Self::Idle => {
                trial.lose()?;
                Ok(Ongoing::default())
            }
            Self::ToDeviceBeforeCopy => self.lose_by(trial, trial.not_executed("bulk"), || {
                moved(&trial.mover, memory.range(), Direction::ToDevice)
            }),
            Self::ToDeviceAfterCopy => self.lose_by(trial, trial.unanswered("bulk"), || {
                moved(&trial.mover, memory.range(), Direction::ToDevice)
            }),
            Self::ToSystemBeforeCopy => self.lose_by(trial, trial.not_executed("bulk"), || {
                moved(&trial.mover, memory.range(), Direction::ToSystem)
            }),
            Self::ToSystemAfterCopy => self.lose_by(trial, trial.unanswered("bulk"), || {
                moved(&trial.mover, memory.range(), Direction::ToSystem)
            }),
            Self::CpuFaultBeforeCopy => self.lose_by(trial, trial.not_executed("urgent"), read),
            Self::CpuFaultAfterCopy => self.lose_by(trial, trial.unanswered("urgent"), read),
            Self::Eviction => self.lose_by(trial, trial.unanswered("bulk"), || {
                let bytes = (half * PAGE) as u64;
                match trial.mover.device.evict_bytes(bytes) {
                    Ok(_) | Err(Error::Gone { .. }) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }),
            Self::Fork => {
                trial.lose()?;
                let before = counter("loss_fault_waits")?;
                let child = fork(read)?;
                wait_for_more("loss_fault_waits", before)?;
                Ok(Ongoing::of(child))
            }
            Self::ExitOfOwner => {
                let owner = fork(|| {
                    let own = trial.memory(100, 5)?;
                    trial.lose()?;
                    drop(own);
                    Ok(())
                })?;
                owner.wait()?;
                Ok(Ongoing::default())
            }
            Self::Unbind => {
                let before = counter("losses")?;
                trial.faults.add(trial.unanswered("bulk"))?;
                trial.unbind()?;
                trial.forgive()?;
                ensure!(counter("losses")? > before, "the device was not lost");
                Ok(Ongoing::default())
            }
            Self::JobRunning => {
                let jobs = Jobs::open()?;
                let list = Memory::single(1)?;
                let id = jobs.begin(&crate::cases::job::endless(&list))?;
                trial.lose()?;
                // The job works on this memory until the device is reset, which it is now.
                drop(list);
                Ok(Ongoing {
                    children: Vec::new(),
                    job: Some((jobs, id)),
                })
            }
            Self::DeviceFault => {
                let before = counter("losses")?;
                let jobs = Jobs::open()?;
                trial.faults.add(trial.unanswered("mmu"))?;
                let id = jobs.begin(&JobRequest::crc32c(memory.range(), 0))?;
                wait_for_more("losses", before)?;
                trial.forgive()?;
                Ok(Ongoing {
                    children: Vec::new(),
                    job: Some((jobs, id)),
                })
            }
        }
    }

    /// Does `work` in a child while the device has a fault, and returns once the device is lost.
    fn lose_by(
        self,
        trial: &Trial,
        fault: Value,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<Ongoing> {
        let before = counter("losses")?;
        trial.faults.add(fault)?;
        let child = fork(work)?;
        wait_for_more("losses", before)?;
        trial.forgive()?;
        Ok(Ongoing::of(child))
    }
}
