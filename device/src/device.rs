// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The virtio device: what its queues, its front end and its control socket share.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crossbeam_utils::CachePadded;
use hmm_gate::{Gate, QueueState, Tickets};
use hmm_protocol::{Event, EventKind, Features};
use parking_lot::{Mutex, RwLock};
use vhost_user_backend::VringT;
use virtio_bindings::{
    virtio_config::{VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_IN_ORDER, VIRTIO_F_VERSION_1},
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use virtio_queue::QueueT;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};
use zerocopy::{
    IntoBytes,
    byteorder::little_endian::{U16, U32, U64},
};

use crate::{
    continuation::Continuation,
    engine::Engine,
    events::EventLog,
    guest_memory::GuestMemory,
    inject::{FaultError, FaultSpec},
    layout::{FIRST_THREAD, QueueLayout},
    memory::MemoryError,
    queue::Worker,
    ring::Ring,
    stats::{Conditions, Snapshot, Stats},
    threads::WorkerTimes,
    trace::Trace,
};

/// An eventfd that makes a worker thread look at all its queues.
#[derive(Debug)]
struct Waker {
    consumer: EventConsumer,
    notifier: EventNotifier,
}

/// The device. It lives as long as the process; front ends and drivers come and go.
pub struct Device {
    engine: Engine,
    gate: Gate<GuestMemory>,
    stats: Stats,
    /// Each is written by its own worker, so each has cache lines of its own.
    queues: Vec<CachePadded<QueueState>>,
    rings: RwLock<Arc<Vec<Ring>>>,
    events: EventLog,
    wakers: Vec<Waker>,
    /// Written for each urgent batch, and read by all workers.
    urgent: CachePadded<AtomicUsize>,
    paused: AtomicBool,
    continuation: Mutex<Continuation>,
    keeps_contents: AtomicBool,
    tickets: Tickets,
    /// What delivers reports: workers and executors take turns.
    reporter: Mutex<Worker>,
    queue_size: u16,
    worker_times: WorkerTimes,
    trace: Trace,
}

impl Device {
    /// A device around `engine`, whose queues have at most `queue_size` descriptors, and whose workers keep to
    /// `worker_times`. Batches go to `trace`.
    ///
    /// # Errors
    /// No eventfd can be made.
    pub fn new(
        engine: Engine,
        queue_size: u16,
        worker_times: WorkerTimes,
        trace: Trace,
    ) -> io::Result<Self> {
        let layout = engine.layout();
        let wakers = (0..layout.threads())
            .map(|_| {
                new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)
                    .map(|(consumer, notifier)| Waker { consumer, notifier })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            engine,
            gate: Gate::new(GuestMemory::empty()),
            stats: Stats::new(layout),
            queues: (0..layout.count())
                .map(|_| CachePadded::default())
                .collect(),
            rings: RwLock::default(),
            events: EventLog::default(),
            wakers,
            urgent: CachePadded::new(AtomicUsize::new(0)),
            paused: AtomicBool::new(false),
            continuation: Mutex::default(),
            keeps_contents: AtomicBool::new(false),
            tickets: Tickets::new(),
            reporter: Mutex::new(Worker::new(worker_times)),
            queue_size,
            worker_times,
            trace,
        })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// All counters now.
    pub fn snapshot(&self) -> Snapshot {
        self.stats.snapshot(Conditions {
            modelled: self.engine.link().is_some(),
            copies: self.engine.copies().names(),
            backing: self.engine.memory().backing(),
            contexts: self.engine.contexts().snapshot(),
            jobs: self.engine.jobs().snapshot(),
        })
    }

    /// Sets every counter to zero.
    pub fn reset_counters(&self) {
        self.stats.reset();
        self.engine.jobs().reset_counts();
    }

    /// The trace.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Which queue carries what.
    pub fn layout(&self) -> QueueLayout {
        self.engine.layout()
    }

    /// Number of queues.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Most descriptors of a queue.
    pub fn queue_size(&self) -> u16 {
        self.queue_size
    }

    /// How long workers do something before they do something else.
    pub fn worker_times(&self) -> WorkerTimes {
        self.worker_times
    }

    /// Whether queue `index` made no sense and is not served.
    pub fn is_broken(&self, index: u16) -> bool {
        self.queues
            .get(usize::from(index))
            .is_some_and(|queue| queue.is_broken())
    }

    /// Number of worker threads.
    pub fn thread_count(&self) -> usize {
        self.wakers.len()
    }

    /// The virtio features that are offered.
    pub fn features(&self) -> u64 {
        self.engine.offered().0
            | 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_F_ACCESS_PLATFORM
            | 1 << VIRTIO_F_IN_ORDER
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    /// `size` bytes of the configuration space from `offset`; zeros beyond its end.
    pub fn read_config(&self, offset: u32, size: u32) -> Vec<u8> {
        self.stats.config_reads.add(1);
        let config = self.engine.config();
        let bytes = config.as_bytes();
        (offset as usize..)
            .take(size as usize)
            .map(|index| bytes.get(index).copied().unwrap_or(0))
            .collect()
    }

    /// Features were negotiated: a driver has started, and whatever was open is closed; or the guest goes on that was stopped,
    /// which [`Device::queue_begins`] finds out. Bits that are not the device's own do not matter here.
    pub fn driver_started(&self, features: Features) {
        self.stats.driver_starts.add(1);
        let may_go_on = self.engine.open_generation().is_some()
            && self.engine.features() == features
            && (self.rings().iter()).all(|ring| !ring.get_ref().get_queue().ready());
        if !self.continuation.lock().negotiated(may_go_on) {
            self.begin_anew(features);
        }
    }

    /// Queue `index` is about to be served from a position on, if it was told. Ends the session if the driver is another one
    /// than before the negotiation.
    pub fn queue_begins(&self, index: u16, position: Option<u16>) {
        let begins_anew = self.continuation.lock().begins(index, position);
        if begins_anew {
            self.begin_anew(self.engine.features());
        }
    }

    /// A driver that knows nothing of what was before has negotiated `features`.
    fn begin_anew(&self, features: Features) {
        // A worker that waits inside for a fault or for the modelled link sees that it is wanted and leaves.
        self.gate.while_quiet(|| {
            self.engine.close_session();
            self.engine.negotiate(features);
        });
        self.events.clear();
        self.restart_queues();
    }

    /// There is a front end; `rings` are its queues.
    pub fn attach(&self, rings: Vec<Ring>) {
        self.stats.connections.add(1);
        *self.rings.write() = Arc::new(rings);
        self.restart_queues();
    }

    /// The front end is gone. When this returns, nothing touches its guest's memory, and none of it is mapped for us; and
    /// nothing is left of its contents unless they are to be kept.
    pub fn detach(&self) {
        let rings = std::mem::take(&mut *self.rings.write());
        for ring in rings.iter() {
            ring.set_enabled(false);
        }
        *self.continuation.lock() = Continuation::default();
        self.gate.replace(GuestMemory::empty());
        self.engine.close_session();
        self.engine.negotiate(Features::default());
        if !self.keeps_contents.load(Ordering::Relaxed) {
            self.engine.scrub();
        }
        self.events.clear();
        self.restart_queues();
    }

    /// From now on contents stay when the front end goes: a driver that knows their key can adopt them.
    pub fn keep_contents(&self) {
        self.keeps_contents.store(true, Ordering::Relaxed);
    }

    /// The memory table changed; the old one is unused when this returns.
    pub fn replace_memory(&self, memory: GuestMemory) {
        self.stats.memory_updates.add(1);
        self.gate.replace(memory);
    }

    /// Returns when every worker has left what it works on at least once since the call.
    pub fn quiesce(&self) {
        self.gate.quiesce();
    }

    /// Queue `index` was stopped; nothing works on it any more when this returns.
    pub fn queue_stopped(&self, index: u16) {
        self.gate.quiesce();
        if let Some(queue) = self.queues.get(usize::from(index)) {
            queue.restart();
        }
        if let Some(ring) = self.rings().get(usize::from(index)) {
            let position = ring.get_ref().get_queue().next_avail();
            self.continuation.lock().stopped(index, position);
        }
    }

    /// Stops or resumes serving batches; control requests and events go on.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
        if paused {
            self.gate.quiesce();
        } else {
            self.wake_all();
        }
    }

    /// Whether batches are not served.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Makes every worker look at its queues, because what held them back may be gone.
    pub fn wake_all(&self) {
        for thread in 0..self.wakers.len() {
            self.wake(thread);
        }
    }

    /// Loses all contents: closes the session, takes a new generation and tells the driver. Returns the generation.
    ///
    /// # Errors
    /// Device memory cannot be discarded; the session is closed nevertheless.
    pub fn renew(&self) -> Result<u64, MemoryError> {
        self.gate.while_quiet(|| self.engine.begin_renewal())?;
        // Slice by slice, so that front ends need not wait for all of them. A driver that opens a session meanwhile does
        // the rest itself.
        let generation = loop {
            let step = || self.engine.memory().continue_renewal();
            if let Some(generation) = self.gate.while_quiet(step)? {
                break generation;
            }
        };
        self.raise(self.event(EventKind::Generation, 0, generation));
        Ok(generation)
    }

    /// Ends the session, with its contexts and jobs. The contents stay, for who can name their generation and key.
    pub fn end_session(&self) {
        self.gate.while_quiet(|| self.engine.close_session());
    }

    /// Adds a fault and returns its number.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add_fault(&self, fault: FaultSpec) -> Result<u64, FaultError> {
        let poisoned = fault.poisoned();
        let id = self.engine.faults().add(fault)?;
        if let Some(start) = poisoned {
            self.raise(self.event(EventKind::Poison, 0, start));
        }
        Ok(id)
    }

    /// An event about `queue`, if it is about one, else 0.
    pub(crate) fn event(&self, kind: EventKind, queue: u16, value: u64) -> Event {
        Event {
            kind: kind as u8,
            flags: 0,
            queue: U16::new(queue),
            reserved: U32::new(0),
            value: U64::new(value),
            generation: U64::new(self.engine.memory().identity().generation),
            reserved2: U64::new(0),
        }
    }

    /// Tells the driver `event` as soon as it has posted a buffer.
    pub fn raise(&self, event: Event) {
        self.events.push(event);
        self.wake(FIRST_THREAD);
    }

    /// The descriptor that wakes a worker.
    pub(crate) fn waker(&self, thread: usize) -> Option<RawFd> {
        self.wakers
            .get(thread)
            .map(|waker| waker.consumer.as_raw_fd())
    }

    /// Takes the wake-up of a worker, so that the next one is seen.
    pub(crate) fn take_wake_up(&self, thread: usize) {
        if let Some(waker) = self.wakers.get(thread) {
            // There may be none left: two wake-ups in a row are one.
            let _ = waker.consumer.consume();
        }
    }

    pub(crate) fn gate(&self) -> &Gate<GuestMemory> {
        &self.gate
    }

    pub(crate) fn queue(&self, index: u16) -> &QueueState {
        &self.queues[usize::from(index)]
    }

    pub(crate) fn events(&self) -> &EventLog {
        &self.events
    }

    pub(crate) fn rings(&self) -> Arc<Vec<Ring>> {
        self.rings.read().clone()
    }

    /// Number of urgent batches that are being executed.
    pub(crate) fn urgent(&self) -> &AtomicUsize {
        &self.urgent
    }

    pub(crate) fn urgent_is_busy(&self) -> bool {
        self.urgent.load(Ordering::Relaxed) != 0
    }

    /// Whether batch queue `index` is to be served now.
    pub(crate) fn is_served(&self, index: u16) -> bool {
        !self.is_paused()
            && (self.layout().role(index))
                .is_some_and(|role| !self.engine.faults().is_stalled(role))
    }

    /// What delivers reports. Lock order: the gate, this, the jobs, a ring.
    pub(crate) fn reporter(&self) -> &Mutex<Worker> {
        &self.reporter
    }

    pub(crate) fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// Makes a worker look at its queues.
    pub(crate) fn wake(&self, thread: usize) {
        if let Some(waker) = self.wakers.get(thread) {
            // It fails only when the counter is full, and then the worker is woken already.
            let _ = waker.notifier.notify();
        }
    }

    fn restart_queues(&self) {
        for queue in &self.queues {
            queue.restart();
        }
    }
}
