// SPDX-License-Identifier: GPL-2.0-only

//! Makes requests to the device wait while the system hibernates.

use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        CondVar,
        Mutex, //
    }, //
};

/// Whether requests to the device have to wait for the end of hibernation.
#[pin_data]
pub(crate) struct Hibernation {
    #[pin]
    is_near: Mutex<bool>,
    #[pin]
    is_over: CondVar,
}

impl Hibernation {
    /// The system does not hibernate.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            is_near <- new_mutex!(false, "Hibernation::is_near"),
            is_over <- new_condvar!("Hibernation::is_over"),
        })
    }

    /// Says whether the system is about to hibernate.
    pub(crate) fn set_near(&self, is_near: bool) {
        *self.is_near.lock() = is_near;
        if !is_near {
            self.is_over.notify_all();
        }
    }

    /// Whether the system is about to hibernate.
    pub(crate) fn is_near(&self) -> bool {
        *self.is_near.lock()
    }

    /// Waits until the system does not hibernate. The freezer wakes a task that waits, as a signal
    /// does, and its system call begins again once tasks are thawed.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS`.
    pub(crate) fn wait_until_over(&self) -> Result {
        let mut is_near = self.is_near.lock();
        while *is_near {
            if self.is_over.wait_interruptible(&mut is_near) {
                return Err(ERESTARTSYS);
            }
        }
        Ok(())
    }
}
