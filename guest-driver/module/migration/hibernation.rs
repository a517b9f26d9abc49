// SPDX-License-Identifier: GPL-2.0-only

//! What happens to device pages when the system hibernates: they migrate back to system memory
//! before the kernel reserves memory for the image, and nothing moves to the device until it is over.
//! If pages stay, hibernation is refused, since an image without them loses them.

use super::evict;
use crate::{
    device::Device,
    sys::services::hibernation::Hibernates, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::Delta, //
};

/// How long eviction goes on without a page that moves before hibernation is refused.
const PATIENCE: Delta = Delta::from_millis(3_000);

/// Is told of hibernation for a device.
pub(crate) struct HibernationListener(pub(crate) Arc<Device>);

impl Hibernates for HibernationListener {
    fn prepare(&self) -> Result {
        // A device that is being unbound has its pages migrated back by that.
        let Some(device) = self.0.pool().attached() else {
            return Ok(());
        };
        let hibernation = &device.engine().hibernation;
        hibernation.set_near(true);
        evict::all(&device, Some(PATIENCE));
        let left = device.pages().resident_bytes();
        if left == 0 {
            return Ok(());
        }
        hibernation.set_near(false);
        dev_warn!(
            device.vdev(),
            "hibernation is refused: {} bytes stay on the device\n",
            left
        );
        Err(EBUSY)
    }

    fn over(&self) {
        // Also for a device that is being unbound, which waits for the requests that wait here.
        self.0.engine().hibernation.set_near(false);
    }
}
