// SPDX-License-Identifier: GPL-2.0-only

//! virtio-hmm: lends a virtio device's private memory to processes.
//!
//! The driver registers the memory of the device as `MEMORY_DEVICE_PRIVATE`, moves ranges of any
//! process to and from it, and lets the device do the copying.

mod contexts;
mod device;
mod dmirror;
mod driver;
mod engine;
mod link;
mod loss;
mod migration;
mod policy;
mod pool;
mod session;
mod space;
mod stats;
mod sys;

kernel::prelude::module! {
    type: driver::Module,
    name: "virtio_hmm",
    authors: ["The virtio-hmm authors"],
    description: "Device-private memory behind a virtio device",
    license: "GPL v2",
    params: {
        timeout_ms: u32 {
            default: 10000,
            description: "Time in milliseconds after which a device that does not answer is reset",
        },
        restart: u8 {
            default: 1,
            description: "0: a device that does not answer is lost at once, and not reset and started anew before",
        },
        loss_wait_ms: u32 {
            default: 30000,
            description: "Time in milliseconds for which users of a lost device's memory wait for its return",
        },
        huge_pages: u8 {
            default: 1,
            description: "0: huge pages are split on their way to the device",
        },
        track_writes: u8 {
            default: 1,
            description: "0: pages stay on the device when the kernel begins to track writes to them, which it does wrong",
        },
        access_bits: u8 {
            default: 1,
            description: "0: eviction does not ask the device which memory jobs accessed",
        },
        dmirror: u8 {
            default: 0,
            description: "1: the first two devices also speak the interface of the kernel's test_hmm",
        },
    },
}
