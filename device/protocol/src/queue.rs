// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Which virtqueue carries what.

/// The virtio device id that the device borrows: 37 is reserved in the virtio specification (dmabuf) and Linux has no
/// driver for it. QEMU's generic device accepts only ids that its own table names; the magic number in the
/// configuration space tells this device from any other.
pub const VIRTIO_ID: u32 = 37;

/// Requests about the device as a whole, one [`crate::ControlRequest`] and one [`crate::ControlReply`] a chain.
pub const CONTROL_QUEUE: u16 = 0;
/// The driver posts writable buffers of [`crate::EVENT_BYTES`]; the device fills one for each [`crate::Event`].
pub const EVENT_QUEUE: u16 = 1;
/// Batches that a CPU waits for. Served first, at most `max_urgent_entries` entries each.
pub const URGENT_QUEUE: u16 = 2;
/// The first of the `bulk_queues` queues for all other batches.
pub const BULK_QUEUE_FIRST: u16 = 3;
/// The most bulk queues that a device may publish.
pub const MAX_BULK_QUEUES: u32 = 16;

/// The most job queues that a device may publish.
pub const MAX_JOB_QUEUES: u32 = 16;

/// With [`crate::Features::CONTEXTS`]: batches of [`crate::MapEntry`] that change the page tables of a context and answer page
/// faults. It follows the bulk queues.
pub const fn mmu_queue(bulk_queues: u16) -> u16 {
    BULK_QUEUE_FIRST + bulk_queues
}

/// With [`crate::Features::CONTEXTS`]: the driver posts writable buffers of [`crate::REPORT_BYTES`]; the device fills one for
/// each [`crate::Report`] and drops none.
pub const fn report_queue(bulk_queues: u16) -> u16 {
    mmu_queue(bulk_queues) + 1
}

/// With [`crate::Features::CONTEXTS`]: the first of the `job_queues` queues on which jobs are submitted.
pub const fn job_queue_first(bulk_queues: u16) -> u16 {
    mmu_queue(bulk_queues) + 2
}

/// A short name for logs and statistics.
pub fn queue_name(index: u16) -> &'static str {
    match index {
        CONTROL_QUEUE => "control",
        EVENT_QUEUE => "event",
        URGENT_QUEUE => "urgent",
        _ => "bulk",
    }
}
