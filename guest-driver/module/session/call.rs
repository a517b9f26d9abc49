// SPDX-License-Identifier: GPL-2.0-only

//! An ioctl on an open file.

use super::{
    jobs::OpenJobs,
    prefetch::Prefetches,
    state::Session, //
};
use crate::{
    device::Device,
    migration::MigrateArgs,
    policy::ProcessEntry,
    pool::AccountId,
    sys::address_space::process::{
        ProcMount,
        Process, //
    }, //
};
use core::ops::Range;
use hmm_uapi::{
    Direction,
    MigrateFlags,
    Trigger, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc,
    task::Pid, //
};

/// An open file.
pub(crate) struct OpenSession {
    // Stopped before the workqueues go.
    pub(super) prefetches: Pin<KBox<Prefetches>>,
    pub(super) jobs: Pin<KBox<OpenJobs>>,
    pub(super) session: Session,
    /// The process that opened it.
    pub(super) opener: Arc<ProcessEntry>,
}

/// An ioctl that found the device.
pub(super) struct Call<'a> {
    pub(super) device: &'a Device,
    pub(super) proc: &'a ProcMount,
}

impl Call<'_> {
    /// A process by its id.
    pub(super) fn process(&self, pid: Pid) -> Result<Process> {
        Process::find(self.proc, pid)
    }

    /// What a process has of device memory, and may have.
    pub(super) fn entry(&self, process: &Process) -> Result<Arc<ProcessEntry>> {
        self.device.pool().processes().of(process.id()?)
    }

    pub(super) fn args(
        &self,
        direction: Direction,
        flags: MigrateFlags,
        trigger: Trigger,
        account: AccountId,
    ) -> MigrateArgs {
        MigrateArgs {
            direction,
            flags,
            huge: *crate::module_parameters::huge_pages.value_ref() != 0,
            refuse_huge: false,
            ticket: self.device.pages().ticket(),
            trigger,
            account,
        }
    }
}

/// How far a call came on its way through a range, which a signal may have ended.
pub(super) struct RangeProgress {
    range: Range<usize>,
    pub(super) next: usize,
}

impl RangeProgress {
    /// The way through `range` of `go`, which returns where it ended.
    pub(super) fn of(range: Range<usize>, go: impl FnOnce() -> Result<usize>) -> Result<Self> {
        let next = match go() {
            Err(error) if error == ERESTARTSYS => range.start,
            result => result?,
        };
        Ok(Self { range, next })
    }

    /// What the call returns once its argument is written.
    ///
    /// # Errors
    ///
    /// `ESRCH`: the process has left. `ERESTARTSYS`: it has done nothing, and the kernel may begin it again. `EINTR`: it
    /// has come a part of the way.
    pub(super) fn result(self, process: &Process) -> Result {
        if self.next >= self.range.end {
            Ok(())
        } else if process.has_left() {
            Err(ESRCH)
        } else if self.next == self.range.start {
            Err(ERESTARTSYS)
        } else {
            Err(EINTR)
        }
    }
}

/// Checks a range of addresses: page aligned, not empty, not wrapping.
pub(super) fn page_range(start: u64, end: u64) -> Result<Range<usize>> {
    let (start, end) = (usize::try_from(start)?, usize::try_from(end)?);
    if start % PAGE_SIZE != 0 || end % PAGE_SIZE != 0 || start >= end {
        return Err(EINVAL);
    }
    Ok(start..end)
}
