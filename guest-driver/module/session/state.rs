// SPDX-License-Identifier: GPL-2.0-only

//! What stands behind `/dev/hmmN`.

use crate::{
    device::DevicePool,
    sys::{
        address_space::process::ProcMount,
        services::workqueue::WorkQueue, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What stands behind `/dev/hmmN`.
#[derive(Clone)]
pub(crate) struct Session {
    pub(super) pool: Arc<DevicePool>,
    /// For prefetches, which wait for the device's workers.
    pub(super) prefetchers: Arc<WorkQueue>,
    /// By which the kernel is asked whose memory a caller may move.
    pub(super) proc: Arc<ProcMount>,
}

impl Session {
    /// Sessions of the device that is attached to `pool`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ENODEV` the kernel has no procfs.
    pub(crate) fn new(pool: Arc<DevicePool>) -> Result<Self> {
        let prefetchers = Arc::new(WorkQueue::freezable(c"virtio_hmm_prefetch")?, GFP_KERNEL)?;
        Ok(Self {
            pool,
            prefetchers,
            proc: Arc::new(ProcMount::new()?, GFP_KERNEL)?,
        })
    }
}
