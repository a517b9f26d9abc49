// SPDX-License-Identifier: GPL-2.0-only

//! The parts together.

use super::{
    jobs::Jobs,
    numbers::Numbers, //
};
use crate::sys::services::workqueue::WorkQueue;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// See the module.
#[pin_data]
pub(crate) struct Contexts {
    /// Serves device faults, each on its own. Dropped first: what was spawned has ended before the rest
    /// goes.
    pub(crate) workers: WorkQueue,
    /// They stay when the device is lost, with their owners, and serve the one that comes back.
    pub(crate) numbers: Arc<Numbers>,
    #[pin]
    pub(crate) jobs: Jobs,
}

impl Contexts {
    /// No jobs, and contexts of these numbers.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(numbers: Arc<Numbers>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            workers: WorkQueue::new(c"virtio_hmm_device_faults")?,
            numbers,
            jobs <- Jobs::new(),
        }? Error)
    }
}
