// SPDX-License-Identifier: GPL-2.0-only

//! virtio-hmm: lends a virtio device's private memory to processes.
//!
//! The driver registers the memory of the device as `MEMORY_DEVICE_PRIVATE`, moves ranges of any
//! process to and from it, and lets the device do the copying.

mod driver;
mod link;
mod migration;
mod policy;
mod pool;
mod session;
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
        // Linux 7.3 drops one reference too many when a process exits or unmaps while a huge
        // device page that it maps is on its way home (zap_huge_pmd_folio() takes the migration
        // entry for the device-private one), so this is for kernels that do not.
        huge_pages: u8 {
            default: 0,
            description: "1: huge pages stay huge; unsafe on Linux 7.3 (docs/kernel-faults.md)",
        },
    },
}
