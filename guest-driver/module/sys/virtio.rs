// SPDX-License-Identifier: GPL-2.0-only

//! The virtio bus, its queues, and the requests that go through them.

mod bus;
pub(crate) mod request;
pub(crate) mod virtqueue;

pub(crate) use self::bus::{
    Adapter,
    Device,
    DeviceId,
    Driver,
    IdTable,
    Setup, //
};
