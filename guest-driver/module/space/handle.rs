// SPDX-License-Identifier: GPL-2.0-only

//! A space, as its users have it.

use super::view::{
    Followed,
    View, //
};
use crate::{
    device::{
        Device,
        DevicePool, //
    },
    sys::address_space::{
        mirror::Mirror,
        process::Process, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// An address space on a device, with a context of its own. Dropping it ends its jobs. It outlives the
/// device; nothing can be done with it then, until the device comes back, which gets a new context.
///
/// # Examples
///
/// ```ignore
/// let space = Space::new(&device, &Process::current()?)?;
/// let job = space.run(&spec, None)?;
/// // The device reads and writes the memory of the process, whatever becomes of its pages meanwhile.
/// let end = job.wait(1000)?;
/// ```
pub(crate) struct Space {
    pub(super) followed: Arc<Followed>,
}

impl Space {
    /// The memory of `process` on `device`. Takes the mmap lock for writing, so the caller must not hold it.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` the device has no contexts, or does not access system memory itself, `ENOSPC` too
    /// many contexts, `ENODEV` the device is going, `ENOMEM`, `ERESTARTSYS` a signal came.
    pub(crate) fn new(device: &Device, process: &Process) -> Result<Self> {
        let link = device.link();
        let most = link.jobs().ok_or(EOPNOTSUPP)?.max_contexts;
        if !link.can_share() {
            return Err(EOPNOTSUPP);
        }
        let known = device.spaces().of(process.mm())?;
        let entry = device.pool().processes().of(process.id()?)?;
        let numbers = &device.contexts().numbers;
        let number = numbers.take(most)?;
        let view = View::new(device, process, number, known, entry);
        let owned = Arc::pin_init(Mirror::new(process.mm(), view), GFP_KERNEL).and_then(
            |followed: Arc<Followed>| {
                numbers.own(number, followed.clone())?;
                Ok(followed)
            },
        );
        if owned.is_err() {
            numbers.release(number);
        }
        Ok(Self { followed: owned? })
    }

    pub(super) fn view(&self) -> &View {
        self.followed.mirrored()
    }

    pub(super) fn pool(&self) -> &DevicePool {
        &self.view().pool
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let view = self.view();
        view.close();
        // Also while the device is lost: the number is another's when it comes back.
        view.numbers.release(view.context);
    }
}
