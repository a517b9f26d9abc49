// SPDX-License-Identifier: GPL-2.0-only

//! The parts together.

use super::{
    jobs::Jobs,
    numbers::Numbers, //
};
use crate::sys::services::workqueue::WorkQueue;
use kernel::prelude::*;

/// See the module.
#[pin_data]
pub(crate) struct Contexts {
    /// Serves device faults, each on its own. Dropped first: what was spawned has ended before the rest
    /// goes.
    pub(crate) workers: WorkQueue,
    #[pin]
    pub(crate) numbers: Numbers,
    #[pin]
    pub(crate) jobs: Jobs,
}

impl Contexts {
    /// No contexts, and no jobs.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            workers: WorkQueue::new(c"virtio_hmm_device_faults")?,
            numbers <- Numbers::new(),
            jobs <- Jobs::new(),
        }? Error)
    }
}
