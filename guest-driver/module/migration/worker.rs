// SPDX-License-Identifier: GPL-2.0-only

//! Work on a process's memory that a CPU fault leaves to a worker.

use crate::device::Device;
use kernel::{
    mm::{
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::aref::ARef, //
};

/// Lets a worker call `work` with the memory of `mm`, unless the process or the device is gone by
/// then. `turn` is dropped at the end in any case.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn spawn(
    device: &Device,
    mm: &MmWithUser,
    turn: impl Send + 'static,
    work: impl FnOnce(&Device, &MmWithUser) + Send + 'static,
) -> Result {
    // Until it begins it does not keep the memory of a process that has ended.
    let mm: ARef<Mm> = ARef::from(&**mm);
    let pool = device.pool().clone();
    device.engine().workers.spawn(move || {
        if let (Some(device), Some(mm)) = (pool.attached(), mm.mmget_not_zero()) {
            work(&device, &mm);
        }
        drop(turn);
    })
}
