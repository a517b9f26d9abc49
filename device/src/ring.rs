// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vring that what the front end sends cannot hurt.
//!
//! It is the library's vring but for its file descriptors: the library ends a worker thread, silently, if reading a
//! kick fails, and a descriptor that blocks would block it for good.

use std::{
    cell::RefCell,
    fs::File,
    io,
    ops::{Deref, DerefMut},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::Error;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use crate::logging::warn_limited;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

thread_local! {
    static COLLECTOR: RefCell<Option<Vec<Ring>>> = const { RefCell::new(None) };
}

/// A vring. Clones are the same vring.
#[derive(Clone)]
pub struct Ring {
    inner: VringMutex<Memory>,
}

impl Ring {
    /// Runs `make`, which makes a daemon and with it its rings, and returns these, by their index, beside its result.
    /// The library keeps them to itself otherwise.
    pub fn collect<T>(make: impl FnOnce() -> T) -> (T, Vec<Self>) {
        COLLECTOR.set(Some(Vec::new()));
        let made = make();
        (made, COLLECTOR.take().unwrap_or_default())
    }
}

impl<'a> VringStateGuard<'a, Memory> for Ring {
    type G = <VringMutex<Memory> as VringStateGuard<'a, Memory>>::G;
}

impl<'a> VringStateMutGuard<'a, Memory> for Ring {
    type G = <VringMutex<Memory> as VringStateMutGuard<'a, Memory>>::G;
}

impl VringT<Memory> for Ring {
    fn new(memory: Memory, max_queue_size: u16) -> Result<Self, Error> {
        let ring = Self {
            inner: VringMutex::new(memory, max_queue_size)?,
        };
        COLLECTOR.with_borrow_mut(|collector| {
            if let Some(rings) = collector {
                rings.push(ring.clone());
            }
        });
        Ok(ring)
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, Memory>>::G {
        self.inner.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, Memory>>::G {
        self.inner.get_mut()
    }

    fn add_used(&self, head: u16, len: u32) -> Result<(), Error> {
        self.inner.add_used(head, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.inner.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, Error> {
        self.inner.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), Error> {
        self.inner.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, Error> {
        self.inner.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.inner.set_enabled(enabled);
    }

    fn set_queue_info(&self, descriptors: u64, avail: u64, used: u64) -> Result<(), Error> {
        self.inner.set_queue_info(descriptors, avail, used)
    }

    fn queue_next_avail(&self) -> u16 {
        self.inner.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.inner.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.inner.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, Error> {
        self.inner.queue_used_idx()
    }

    fn set_queue_size(&self, size: u16) {
        self.inner.set_queue_size(size);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.inner.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.inner.set_queue_ready(ready);
    }

    fn set_kick(&self, file: Option<File>) {
        self.inner.set_kick(file.and_then(never_blocking));
    }

    fn read_kick(&self) -> io::Result<bool> {
        match self.inner.read_kick() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(self.inner.get_ref().is_enabled())
            }
            Err(error) => {
                // It would be ready for ever. Closing it takes it out of the epoll set.
                warn_limited!(%error, "a kick descriptor cannot be read; its queue gets no more kicks");
                self.inner.set_kick(None);
                Ok(false)
            }
            enabled => enabled,
        }
    }

    fn set_call(&self, file: Option<File>) {
        self.inner.set_call(file.and_then(never_blocking));
    }

    fn set_err(&self, file: Option<File>) {
        self.inner.set_err(file);
    }
}

/// The file with `O_NONBLOCK`, or nothing if that cannot be had.
fn never_blocking(file: File) -> Option<File> {
    let set = fcntl_getfl(&file).and_then(|flags| fcntl_setfl(&file, flags | OFlags::NONBLOCK));
    match set {
        Ok(()) => Some(file),
        Err(error) => {
            warn_limited!(%error, "a descriptor of the front end cannot be made non-blocking and is not used");
            None
        }
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

/// A locked ring.
pub trait LockedRing: Deref<Target = VringState<Memory>> + DerefMut {}
impl<T: Deref<Target = VringState<Memory>> + DerefMut> LockedRing for T {}
