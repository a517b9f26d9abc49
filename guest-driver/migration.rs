// SPDX-License-Identifier: GPL-2.0-only

//! Pages on their way: to the device, to system memory, and home by a CPU fault.
//!
//! The order is the same everywhere: collect the sources, allocate the destinations, have the
//! device copy, *check every entry*, and only then install the destinations. An entry that failed
//! loses its destination and stays where it is, so every error before that point is reversible,
//! and there is none after it.
//!
//! # Lock order
//!
//! mmap lock > folio locks (held by a `Migration`) > `Pool::blocks`, a queue's ring. Nobody waits
//! for the mmap lock, or touches user memory, while a `Migration` exists.

mod copy;
pub(crate) mod cpu_fault;
pub(crate) mod evict;
pub(crate) mod range;
mod tally;
mod to_device;
mod to_system;

pub(crate) use self::tally::Tally;
use crate::{
    link::Link,
    pool::Pool,
    stats::Stats,
    sys::{
        gate::Gate,
        migrate::Buffers,
        page::HUGE_PAGES,
        pagemap::{
            Fault,
            FaultError,
            PrivateMemory, //
        }, //
    }, //
};
use kernel::{
    new_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        SpinLock, //
    }, //
};

/// Device memory with everything that moves pages to and from it.
pub(crate) type DeviceMemory = PrivateMemory<Pool<Engine>>;

/// CPU faults that are served at once; others wait for one of them.
const FAULT_CONTEXTS: usize = 16;

/// What moves pages.
pub(crate) struct Engine {
    link: Pin<KBox<Gate<Link>>>,
    fault_contexts: Pin<KBox<FaultContexts>>,
    stats: Arc<Stats>,
}

impl Engine {
    /// An engine that has a device copy.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(link: Pin<KBox<Gate<Link>>>, stats: Arc<Stats>) -> Result<Self> {
        Ok(Self {
            link,
            fault_contexts: KBox::pin_init(FaultContexts::new(), GFP_KERNEL)?,
            stats,
        })
    }

    /// The device that copies.
    pub(crate) fn link(&self) -> &Gate<Link> {
        &self.link
    }

    /// The counters.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }
}

impl crate::pool::FaultServer for Engine {
    fn serve(&self, memory: &DeviceMemory, fault: &Fault<'_>) -> Result<(), FaultError> {
        cpu_fault::serve(memory, fault)
    }
}

/// Buffers for CPU faults, which must not allocate.
#[pin_data]
struct FaultContexts {
    #[pin]
    idle: SpinLock<KVec<Buffers>>,
    #[pin]
    returned: CondVar,
}

impl FaultContexts {
    fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let mut idle = KVec::with_capacity(FAULT_CONTEXTS, GFP_KERNEL)?;
            for _ in 0..FAULT_CONTEXTS {
                idle.push(Buffers::new(HUGE_PAGES, false)?, GFP_KERNEL)?;
            }
            Ok(try_pin_init!(Self {
                idle <- new_spinlock!(idle, "FaultContexts::idle"),
                returned <- new_condvar!("FaultContexts::returned"),
            }))
        })
    }

    /// Runs `serve` with buffers; sleeps while there are none. Whoever has some waits for the
    /// device at most, which is bounded.
    fn with<R>(&self, serve: impl FnOnce(&mut Buffers) -> R) -> R {
        let mut buffers = {
            let mut idle = self.idle.lock();
            loop {
                if let Some(buffers) = idle.pop() {
                    break buffers;
                }
                self.returned.wait(&mut idle);
            }
        };
        let result = serve(&mut buffers);
        // There is room for all contexts.
        let returned = self.idle.lock().push_within_capacity(buffers);
        debug_assert!(returned.is_ok());
        self.returned.notify_one();
        result
    }
}
