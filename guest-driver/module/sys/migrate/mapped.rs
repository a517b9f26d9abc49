// SPDX-License-Identifier: GPL-2.0-only

//! That pages are mapped for a device.

use crate::sys::virtio::{
    request::Carrier,
    virtqueue::{
        DmaDirection,
        Queue, //
    }, //
};

/// For which device pages are mapped, how, and which request carries their addresses.
pub(super) struct Mapped<'a> {
    pub(super) queue: &'a Queue,
    pub(super) carrier: Carrier,
    pub(super) direction: DmaDirection,
}
