// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the targets begin with: an engine or a device, the memory of its guest, and rings in it.

use std::{sync::Arc, time::Duration};

use vhost_user_backend::VringT;
use vhost_user_hmm::{
    device::Device,
    engine::{CopyChoice, CopyRoutine, CopyRoutines, Engine, Shape},
    inject::Faults,
    memory::DeviceMemory,
    ring::{Ring, no_memory},
    threads::WorkerTimes,
    trace::Trace,
};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Bytes of device memory.
pub(crate) const DEVICE_BYTES: usize = 2 << 20;
/// Entries of every ring.
pub(crate) const RING_SIZE: u16 = 16;

/// Workers never look for work, and publish as they do by default.
pub(crate) const WORKER_TIMES: WorkerTimes = WorkerTimes {
    poll: Duration::ZERO,
    set: Duration::from_micros(50),
};

/// What executes requests.
pub(crate) fn engine() -> Engine {
    engine_with(DEVICE_BYTES as u64)
}

/// What executes requests, with `bytes` bytes of device memory, for a driver that negotiated everything.
pub(crate) fn engine_with(bytes: u64) -> Engine {
    let memory = DeviceMemory::anonymous(bytes).expect("memory");
    let copies = CopyRoutines::new(CopyChoice::Fixed(CopyRoutine::Memcpy));
    let engine = Engine::new(memory, Shape::default(), Faults::default(), copies, None);
    engine.negotiate(engine.offered());
    engine
}

/// A device.
pub(crate) fn device(queue_size_max: u16) -> Device {
    Device::new(engine(), queue_size_max, WORKER_TIMES, Trace::none()).expect("descriptors")
}

/// Memory of a guest: regions with a start and a length.
pub(crate) fn guest_memory(table: &[(u64, u64)]) -> Arc<GuestMemoryMmap> {
    let ranges: Vec<_> = (table.iter())
        .map(|&(start, len)| (GuestAddress(start), len as usize))
        .collect();
    Arc::new(GuestMemoryMmap::from_ranges(&ranges).expect("memory"))
}

/// A ring of [`RING_SIZE`] entries that a driver has just set up.
pub(crate) fn ring(queue_size_max: u16, descriptors: u64, avail: u64, used: u64) -> Ring {
    let ring = Ring::new(no_memory(), queue_size_max).expect("a ring");
    ring.set_queue_size(RING_SIZE);
    ring.set_queue_info(descriptors, avail, used)
        .expect("aligned");
    ring.set_queue_event_idx(true);
    ring.set_queue_ready(true);
    ring.set_enabled(true);
    ring
}
