// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What vhost-user asks for, in terms of the device.
//!
//! Nothing here returns an error for what a guest or front end does: an error from a handler closes the connection, and
//! one from `handle_event` ends a worker without a word.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use hmm_protocol::{Features, URGENT_QUEUE};
use parking_lot::Mutex;
use vhost::vhost_user::{
    Backend,
    message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures},
};
use vhost_user_backend::VhostUserBackend;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::{
    epoll::EventSet,
    event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier},
};

use crate::{
    device::Device,
    guest_memory::GuestMemory,
    layout::{FIRST_THREAD, Role},
    queue::Worker,
    ring::{self, Ring},
};

/// The device as one front end sees it. Clones are the same.
#[derive(Clone)]
pub struct HmmBackend {
    inner: Arc<Inner>,
}

struct Inner {
    device: Arc<Device>,
    /// One for each worker thread, which alone locks it.
    workers: Vec<Mutex<Worker>>,
    /// Kept because dropping it would close the front end's channel. Nothing is sent on it.
    channel: Mutex<Option<Backend>>,
    /// The descriptors that the library was given to wait for its end.
    exit_descriptors: Mutex<Vec<RawFd>>,
}

impl HmmBackend {
    /// The back end of one connection.
    pub fn new(device: Arc<Device>) -> Self {
        let workers = (0..device.thread_count())
            .map(|_| Mutex::new(Worker::new(device.worker_times())))
            .collect();
        Self {
            inner: Arc::new(Inner {
                device,
                workers,
                channel: Mutex::new(None),
                exit_descriptors: Mutex::default(),
            }),
        }
    }

    /// The number under which a worker's waker is registered. Smaller ones are the library's own.
    pub fn wake_event(&self) -> u64 {
        self.inner.device.queue_count() as u64 + 1
    }

    /// Closes what the library leaves open: it adds the exit events' descriptors to its epoll sets and forgets them.
    ///
    /// # Safety
    /// The daemon of this back end has been dropped, and it was that of vhost-user-backend 0.24.0.
    pub unsafe fn close_exit_events(&self) {
        for descriptor in self.inner.exit_descriptors.lock().drain(..) {
            // SAFETY: the caller's promise: the descriptor is open and has no owner any more.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }

    fn serve(&self, queue: u16, ring: &Ring, worker: &mut Worker) {
        let device = &self.inner.device;
        match device.layout().role(queue) {
            Some(Role::Control) => device.serve_control(ring, worker),
            Some(Role::Event) => device.serve_events(ring, worker),
            Some(Role::Urgent | Role::Bulk(_) | Role::Mmu | Role::Job(_)) => {
                device.serve_batches(queue, ring, worker);
            }
            Some(Role::Report) => device.serve_reports(ring),
            None => {}
        }
    }
}

impl VhostUserBackend for HmmBackend {
    type Bitmap = ();
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        self.inner.device.queue_count()
    }

    fn max_queue_size(&self) -> usize {
        // The library closes the connection of a guest that asks for more. The rings know what the device allows.
        usize::from(ring::LONGEST)
    }

    fn features(&self) -> u64 {
        self.inner.device.features() | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&self, features: u64) {
        tracing::debug!(features = format_args!("{features:#x}"), "a driver started");
        self.inner.device.driver_started(Features(features));
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
            // QEMU insists on a channel in the other direction where ACCESS_PLATFORM is offered.
            | VhostUserProtocolFeatures::BACKEND_REQ
    }

    fn reset_device(&self) {
        self.inner.device.driver_started(Features::default());
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The rings know it already.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        self.inner.device.read_config(offset, size)
    }

    fn set_config(&self, _offset: u32, _bytes: &[u8]) -> io::Result<()> {
        // The configuration space is read-only, and QEMU writes all of it whenever the guest writes a byte.
        self.inner.device.stats().config_writes.add(1);
        Ok(())
    }

    fn update_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        let memory = GuestMemory::new(ring::current(&memory));
        let (regions, bytes) = memory.extent();
        tracing::debug!(regions, bytes, "the memory table changed");
        self.inner.device.replace_memory(memory);
        Ok(())
    }

    fn set_backend_req_fd(&self, channel: Backend) {
        *self.inner.channel.lock() = Some(channel);
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.inner.device.thread_count())
            .map(|thread| {
                let layout = self.inner.device.layout();
                (layout.queues_of(thread))
                    .into_iter()
                    .fold(0, |mask, queue| mask | 1 << queue)
            })
            .collect()
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        // A fresh pair each time: workers of the next connection would end at once on one that has fired.
        match new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC) {
            Ok(pair) => {
                self.inner.exit_descriptors.lock().push(pair.0.as_raw_fd());
                Some(pair)
            }
            Err(error) => {
                // Without it the workers could never be joined.
                tracing::error!(%error, "no descriptor is left for the exit event");
                std::process::exit(crate::end::EXIT_INTERNAL)
            }
        }
    }

    fn stop_vring(&self, queue: u32) -> io::Result<()> {
        self.inner
            .device
            .queue_stopped(u16::try_from(queue).unwrap_or(u16::MAX));
        Ok(())
    }

    fn handle_event(
        &self,
        event: u16,
        _set: EventSet,
        rings: &[Ring],
        thread: usize,
    ) -> io::Result<()> {
        let Some(worker) = self.inner.workers.get(thread) else {
            return Ok(());
        };
        let mut worker = worker.lock();
        let device = &self.inner.device;
        // `event` and `rings` count the queues of this thread from zero.
        let first = device.layout().first_of(thread);
        let ring_of = |queue: u16| rings.get(usize::from(queue.checked_sub(first)?));
        if u64::from(event) == self.wake_event() {
            device.take_wake_up(thread);
            for queue in device.layout().queues_of(thread) {
                if let Some(ring) = ring_of(queue) {
                    self.serve(queue, ring, &mut worker);
                }
            }
            return Ok(());
        }
        let queue = first.saturating_add(event);
        if let Some(ring) = ring_of(queue) {
            device.stats().queue(queue).kicks.add(1);
            if thread == FIRST_THREAD
                && queue != URGENT_QUEUE
                && let Some(urgent) = ring_of(URGENT_QUEUE)
            {
                self.serve(URGENT_QUEUE, urgent, &mut worker);
            }
            self.serve(queue, ring, &mut worker);
        }
        Ok(())
    }
}
