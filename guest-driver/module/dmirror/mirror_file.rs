// SPDX-License-Identifier: GPL-2.0-only

//! An open file, and the address space that it mirrors.

use crate::{
    device::{
        Device,
        DevicePool, //
    },
    space::Space,
    sys::address_space::{
        mm::end_of_addresses,
        process::Process, //
    }, //
};
use core::ops::Range;
use kernel::{
    mm::{
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::AtomicFlag,
        Arc, //
    },
    task::Task, //
};

/// An open file. No page of the device refers to it, so closing the file evicts nothing.
pub(crate) struct MirrorFile {
    pub(super) pool: Arc<DevicePool>,
    /// What the device may access.
    pub(super) space: Space,
    /// Whether the next migration is to find no huge page.
    pub(super) refuse_huge: AtomicFlag,
    mm: ARef<Mm>,
    task: ARef<Task>,
}

impl MirrorFile {
    /// Mirrors the address space of the caller.
    ///
    /// # Errors
    ///
    /// `ESRCH` the caller has none; as [`Space::new`].
    pub(super) fn of_caller(device: &Device) -> Result<Self> {
        let process = Process::current()?;
        let mm: &MmWithUser = process.mm();
        Ok(Self {
            pool: device.pool().clone(),
            space: Space::new(device, &process)?,
            refuse_huge: AtomicFlag::new(false),
            mm: ARef::from(&**mm),
            task: process.task().clone(),
        })
    }

    /// Whether the process can map the addresses, which windows of the driver are not among.
    ///
    /// # Errors
    ///
    /// `EFAULT`: it cannot, or the address space has ended.
    pub(super) fn check_addresses(&self, range: &Range<usize>) -> Result {
        let mm = self.mm.mmget_not_zero().ok_or(EFAULT)?;
        match range.end <= end_of_addresses(&mm) {
            true => Ok(()),
            false => Err(EFAULT),
        }
    }

    /// The process whose address space this mirrors.
    ///
    /// # Errors
    ///
    /// `EINVAL`: the address space has ended.
    pub(super) fn process(&self) -> Result<Process> {
        let mm = self.mm.mmget_not_zero().ok_or(EINVAL)?;
        match Process::current() {
            // Of the threads, this one is alive.
            Ok(caller) if caller.mm().as_raw() == mm.as_raw() => Ok(caller),
            _ => Ok(Process::with_memory(self.task.clone(), mm)),
        }
    }
}
