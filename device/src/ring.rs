// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vring that what the front end sends cannot hurt.
//!
//! It wraps the library's vring. The library closes the connection, or ends a worker thread without a word, for errors
//! that a guest or a front end can cause, and it leaves replaced kick descriptors in its epoll sets. Here a set-up that
//! makes no sense is remembered as a [`Defect`], and the queue is marked broken when a worker comes to it; descriptors
//! are kept and used by this module.

mod descriptor;
mod idle;

use std::{
    cell::RefCell,
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use thiserror::Error;
use vhost_user_backend::{VringMutex, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error as QueueError, Queue, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use self::idle::IdleKicks;
use crate::{guest_memory::GuestMemory, logging::warn_limited};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// The longest ring that the library can describe. It closes the connection for a longer one, so this is what it is
/// told, and a ring that is longer than the device allows is a [`Defect`].
pub const LONGEST: u16 = 1 << 15;

/// Why a ring cannot be served.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Defect {
    /// Its size.
    #[error("the ring's size is not a power of two, or more than the device allows")]
    Size,
    /// Its addresses.
    #[error("a part of the ring is not aligned as virtio asks")]
    Alignment,
    /// The guest's memory.
    #[error("a part of the ring is not in the memory table")]
    OutOfTable,
    /// Its kick descriptor cannot be read.
    #[error("the kick descriptor cannot be read")]
    UnreadableKick,
    /// Its kick descriptor is readable again and again.
    #[error("the kick descriptor is readable again and again, and no chain comes with it")]
    EndlessKick,
}

/// What a ring needs of the connection that it belongs to.
pub trait Connection: Send + Sync {
    /// Takes a descriptor that is about to be closed out of the worker's epoll set. As long as the front end has it
    /// open, the kernel would not.
    fn stop_listening(&self, descriptor: RawFd);
    /// Returns when no worker works on what it saw of the ring before the call.
    fn quiesce(&self);
    /// The ring can be served no longer.
    fn break_ring(&self, defect: Defect);
    /// The ring is about to begin at this position, or to be served at one that was not told.
    fn begins(&self, position: Option<u16>);
    /// The ring is served from now on. What is in it may have been kicked for before.
    fn started(&self);
}

thread_local! {
    static COLLECTOR: RefCell<Option<Collector>> = const { RefCell::new(None) };
}

struct Collector {
    max_size: u16,
    rings: Vec<Ring>,
}

/// A vring. Clones are the same vring.
#[derive(Clone)]
pub struct Ring {
    inner: VringMutex<Memory>,
    extra: Arc<Extra>,
}

/// What is known of a ring beside the library's state.
struct Extra {
    max_size: u16,
    wrong_size: AtomicBool,
    misaligned: AtomicBool,
    /// The memory table in which the set-up was found to make sense; 0 for none.
    examined_in: AtomicU64,
    /// The kick descriptor once more: the library's handle only gives its number away.
    kick: Mutex<Option<File>>,
    idle_kicks: Mutex<IdleKicks>,
    call: Mutex<Option<Signal>>,
    error: Mutex<Option<Signal>>,
    connection: OnceLock<Box<dyn Connection>>,
}

/// A descriptor that is signalled.
struct Signal {
    file: File,
    may_block: bool,
}

impl Signal {
    fn new(file: File) -> Option<Self> {
        match descriptor::may_block(&file) {
            Ok(may_block) => Some(Self { file, may_block }),
            Err(error) => {
                warn_limited!(%error, "a descriptor of the front end cannot be used");
                None
            }
        }
    }

    fn send(&self) -> io::Result<()> {
        descriptor::signal(&self.file, self.may_block)
    }
}

impl Ring {
    /// Runs `make`, which makes a daemon and with it its rings of at most `max_size` descriptors, and returns these, by
    /// their index, beside its result. The library keeps them to itself otherwise.
    pub fn collect<T>(max_size: u16, make: impl FnOnce() -> T) -> (T, Vec<Self>) {
        COLLECTOR.set(Some(Collector {
            max_size,
            rings: Vec::new(),
        }));
        let made = make();
        let rings = COLLECTOR.take().map(|collector| collector.rings);
        (made, rings.unwrap_or_default())
    }

    /// Tells the ring which connection it belongs to. Later calls have no effect.
    pub fn connect(&self, connection: Box<dyn Connection>) {
        // The first one stays.
        let _ = self.extra.connection.set(connection);
    }

    /// Whether the ring is started and enabled, and so may be walked in `guest`.
    ///
    /// # Errors
    /// It is, but its set-up makes no sense.
    pub fn examine(&self, guest: &GuestMemory) -> Result<bool, Defect> {
        let state = self.inner.get_ref();
        if !state.is_enabled() || !state.get_queue().ready() {
            return Ok(false);
        }
        let extra = &*self.extra;
        if extra.examined_in.load(Ordering::Acquire) == guest.epoch() {
            return Ok(true);
        }
        if extra.wrong_size.load(Ordering::Acquire) {
            return Err(Defect::Size);
        }
        if extra.misaligned.load(Ordering::Acquire) {
            return Err(Defect::Alignment);
        }
        if !lies_in(state.get_queue(), guest) {
            return Err(Defect::OutOfTable);
        }
        extra.examined_in.store(guest.epoch(), Ordering::Release);
        Ok(true)
    }

    /// Tells the front end that the queue is broken.
    pub fn signal_error(&self) {
        if let Some(error) = &*self.extra.error.lock()
            && let Err(error) = error.send()
        {
            tracing::debug!(%error, "the front end could not be told of a broken queue");
        }
    }

    /// The set-up changed: it is examined again before the ring is served. Call it after the change.
    fn forget_examination(&self) {
        self.extra.examined_in.store(0, Ordering::Release);
    }

    /// Drops the kick descriptor, since it is of no use, and breaks the ring.
    fn refuse_kick(&self, defect: Defect) {
        self.replace_kick(None);
        if let Some(connection) = self.extra.connection.get() {
            connection.break_ring(defect);
        }
    }

    fn replace_kick(&self, file: Option<File>) {
        if let (Some(_), Some(connection)) = (&file, self.extra.connection.get()) {
            connection.begins(None);
        }
        let mut state = self.inner.get_mut();
        if let (Some(kick), Some(connection)) = (state.get_kick(), self.extra.connection.get()) {
            connection.stop_listening(kick.as_raw_fd());
        }
        // The library listens to the descriptor of a ring that starts, and to that one only.
        if file.is_some() {
            state.get_queue_mut().set_ready(false);
        }
        drop(state);
        *self.extra.idle_kicks.lock() = IdleKicks::default();
        let copy = file.as_ref().map(File::try_clone).transpose();
        match copy {
            Ok(copy) => {
                *self.extra.kick.lock() = copy;
                self.inner.set_kick(file);
            }
            Err(error) => {
                warn_limited!(%error, "no descriptor is left for a kick; its queue gets none");
                *self.extra.kick.lock() = None;
                self.inner.set_kick(None);
            }
        }
    }
}

/// Whether all parts of the ring are in the memory table.
fn lies_in(queue: &Queue, guest: &GuestMemory) -> bool {
    let size = u64::from(queue.size());
    let descriptors = 16 * size;
    // Flags and index before the elements, and the other side's event index behind them.
    let available = 4 + 2 * size + 2;
    let used = 4 + 8 * size + 2;
    guest.contains(queue.desc_table(), descriptors)
        && guest.contains(queue.avail_ring(), available)
        && guest.contains(queue.used_ring(), used)
}

impl<'a> VringStateGuard<'a, Memory> for Ring {
    type G = <VringMutex<Memory> as VringStateGuard<'a, Memory>>::G;
}

impl<'a> VringStateMutGuard<'a, Memory> for Ring {
    type G = <VringMutex<Memory> as VringStateMutGuard<'a, Memory>>::G;
}

impl VringT<Memory> for Ring {
    fn new(memory: Memory, max_queue_size: u16) -> Result<Self, QueueError> {
        let inner = VringMutex::new(memory, max_queue_size)?;
        COLLECTOR.with_borrow_mut(|collector| {
            let max_size = collector
                .as_ref()
                .map_or(max_queue_size, |collector| collector.max_size);
            inner.set_queue_size(max_size);
            let ring = Self {
                inner,
                extra: Arc::new(Extra {
                    max_size,
                    wrong_size: AtomicBool::new(false),
                    misaligned: AtomicBool::new(false),
                    examined_in: AtomicU64::new(0),
                    kick: Mutex::new(None),
                    idle_kicks: Mutex::default(),
                    call: Mutex::new(None),
                    error: Mutex::new(None),
                    connection: OnceLock::new(),
                }),
            };
            if let Some(collector) = collector {
                collector.rings.push(ring.clone());
            }
            Ok(ring)
        })
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, Memory>>::G {
        self.inner.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, Memory>>::G {
        self.inner.get_mut()
    }

    fn add_used(&self, head: u16, len: u32) -> Result<(), QueueError> {
        self.inner.add_used(head, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        match &*self.extra.call.lock() {
            Some(call) => call.send(),
            None => Ok(()),
        }
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.inner.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.inner.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.inner.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        let was_enabled = {
            let mut state = self.inner.get_mut();
            let was_enabled = state.is_enabled();
            state.set_enabled(enabled);
            was_enabled
        };
        let Some(connection) = self.extra.connection.get() else {
            return;
        };
        match (was_enabled, enabled) {
            // The front end may touch the ring as soon as this is answered.
            (true, false) => connection.quiesce(),
            (_, true) => connection.started(),
            (false, false) => {}
        }
    }

    fn set_queue_info(&self, descriptors: u64, avail: u64, used: u64) -> Result<(), QueueError> {
        let set = self.inner.set_queue_info(descriptors, avail, used);
        self.extra.misaligned.store(set.is_err(), Ordering::Release);
        self.forget_examination();
        Ok(())
    }

    fn queue_next_avail(&self) -> u16 {
        self.inner.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        if let Some(connection) = self.extra.connection.get() {
            connection.begins(Some(base));
        }
        self.inner.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.inner.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        if self.extra.misaligned.load(Ordering::Acquire) {
            return Ok(0);
        }
        // A used ring that cannot be read is found when the ring is examined.
        Ok(self.inner.queue_used_idx().unwrap_or(0))
    }

    fn set_queue_size(&self, size: u16) {
        let right = size.is_power_of_two() && size <= self.extra.max_size;
        if right {
            self.inner.set_queue_size(size);
        }
        self.extra.wrong_size.store(!right, Ordering::Release);
        self.forget_examination();
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.inner.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.inner.set_queue_ready(ready);
    }

    fn set_kick(&self, file: Option<File>) {
        self.replace_kick(file);
    }

    fn read_kick(&self) -> io::Result<bool> {
        let taken = match &*self.extra.kick.lock() {
            Some(kick) => descriptor::take(kick),
            None => return Ok(false),
        };
        if let Err(error) = taken {
            warn_limited!(%error, "a kick descriptor cannot be read");
            self.refuse_kick(Defect::UnreadableKick);
            return Ok(false);
        }
        let (enabled, position) = {
            let state = self.inner.get_ref();
            (state.is_enabled(), state.get_queue().next_avail())
        };
        let too_many = self.extra.idle_kicks.lock().note(position, Instant::now());
        if too_many {
            self.refuse_kick(Defect::EndlessKick);
            return Ok(false);
        }
        Ok(enabled)
    }

    fn set_call(&self, file: Option<File>) {
        *self.extra.call.lock() = file.and_then(Signal::new);
    }

    fn set_err(&self, file: Option<File>) {
        *self.extra.error.lock() = file.and_then(Signal::new);
    }
}

/// The memory that rings of a fresh connection start with.
pub fn no_memory() -> Memory {
    GuestMemoryAtomic::new(GuestMemoryMmap::new())
}

/// The current memory table behind `memory`.
pub fn current(memory: &Memory) -> std::sync::Arc<GuestMemoryMmap> {
    memory.memory().into_inner()
}
