// SPDX-License-Identifier: GPL-2.0-only

//! What happens to device pages when the system hibernates: they migrate back to system memory
//! before the kernel reserves memory for the image, and nothing moves to the device until it is over.
//! If pages stay, hibernation is refused, since an image without them loses them.

use super::{
    evict,
    Door, //
};
use crate::sys::services::hibernation::Hibernates;
use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        Mutex, //
    },
    time::Delta, //
};

/// How long eviction goes on without a page that moves before hibernation is refused.
const PATIENCE: Delta = Delta::from_millis(3_000);

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
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            is_near <- new_mutex!(false, "Hibernation::is_near"),
            is_over <- new_condvar!("Hibernation::is_over"),
        })
    }

    fn set_near(&self, is_near: bool) {
        *self.is_near.lock() = is_near;
        if !is_near {
            self.is_over.notify_all();
        }
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

/// Hears of hibernation for the device behind a door.
pub(crate) struct HibernationListener(pub(crate) Arc<Door>);

impl Hibernates for HibernationListener {
    fn prepare(&self) -> Result {
        // A device that is being unbound has its pages migrated back by that.
        let Some(memory) = self.0.enter() else {
            return Ok(());
        };
        let engine = memory.ops().server();
        engine.hibernation().set_near(true);
        let Some(link) = engine.link().enter() else {
            return Ok(());
        };
        evict::all(&memory, &link, Some(PATIENCE));
        let left = memory.ops().resident_bytes();
        if left == 0 {
            return Ok(());
        }
        engine.hibernation().set_near(false);
        dev_warn!(
            link.device(),
            "hibernation is refused: {} bytes stay on the device\n",
            left
        );
        Err(EBUSY)
    }

    fn over(&self) {
        // Also for a device that is being unbound, which waits for those who wait here.
        (self.0.value().ops().server().hibernation()).set_near(false);
    }
}
