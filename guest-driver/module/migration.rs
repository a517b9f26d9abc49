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
//! for the mmap lock, or touches user memory, while a `Migration` exists, nor begins a `ClearHold`:
//! that waits for those who clear entries, and they wait for the holds that there are.

mod ahead;
mod copy;
pub(crate) mod cpu_fault;
mod destinations;
pub(crate) mod evict;
mod hibernation;
mod home;
mod learned;
pub(crate) mod range;
mod split;
mod tally;
mod to_device;
mod to_system;

use self::{
    ahead::Ahead,
    evict::Background,
    hibernation::Hibernation,
    learned::Learned,
    range::Scratches, //
};
pub(crate) use self::{
    hibernation::HibernationListener,
    tally::Tally, //
};
use crate::{
    link::{
        Link,
        BATCH_ENTRIES,
        BULK_BATCHES, //
    },
    policy::Spaces,
    pool::Pool,
    stats::Stats,
    sys::{
        device_memory::{
            page::HUGE_PAGES,
            pagemap::{
                Fault,
                FaultError,
                PrivateMemory, //
            }, //
        },
        migrate::BufferPool,
        services::gate::Gate, //
    }, //
};
use hmm_logic::BLOCK_PAGES;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};

/// Device memory with everything that moves pages to and from it.
pub(crate) type DeviceMemory = PrivateMemory<Pool<Engine>>;

/// The way from open files to the device, which may go while they stay.
pub(crate) type Door = Gate<Pin<KBox<DeviceMemory>>>;

/// Pages of the largest batch.
pub(crate) const BATCH_PAGES: usize = BATCH_ENTRIES;
/// CPU faults that are served at once; others wait for one of them.
const FAULTS: usize = 16;
/// Blocks that are evicted at once.
const EVICTIONS: usize = 2;

/// What moves pages.
pub(crate) struct Engine {
    link: Pin<KBox<Gate<Link>>>,
    /// For CPU faults, which must not allocate.
    fault_buffers: Pin<KBox<BufferPool>>,
    /// For requests.
    bulk_buffers: Pin<KBox<BufferPool>>,
    /// For bringing pages home when memory may be short.
    evict_buffers: Pin<KBox<BufferPool>>,
    learned: Pin<KBox<Learned>>,
    ahead: Pin<KBox<Ahead>>,
    background: Arc<Background>,
    scratches: Pin<KBox<Scratches>>,
    hibernation: Pin<KBox<Hibernation>>,
    spaces: Pin<KBox<Spaces>>,
    stats: Arc<Stats>,
}

impl Engine {
    /// An engine that has a device copy.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(link: Pin<KBox<Gate<Link>>>, stats: Arc<Stats>) -> Result<Self> {
        let most = usize::try_from(link.value().max_batch_bytes())?;
        let most = most.min(BATCH_PAGES * PAGE_SIZE);
        // There are as many leases as the link has requests for batches.
        let bulk = BufferPool::new(BULK_BATCHES - EVICTIONS, BATCH_PAGES, false);
        Ok(Self {
            link,
            fault_buffers: KBox::pin_init(BufferPool::new(FAULTS, HUGE_PAGES, false), GFP_KERNEL)?,
            bulk_buffers: KBox::pin_init(bulk, GFP_KERNEL)?,
            evict_buffers: KBox::pin_init(
                BufferPool::new(EVICTIONS, BLOCK_PAGES, true),
                GFP_KERNEL,
            )?,
            learned: KBox::pin_init(Learned::new(most), GFP_KERNEL)?,
            ahead: KBox::pin_init(Ahead::new(), GFP_KERNEL)?,
            background: Background::new()?,
            scratches: KBox::pin_init(Scratches::new(), GFP_KERNEL)?,
            hibernation: KBox::pin_init(Hibernation::new(), GFP_KERNEL)?,
            spaces: KBox::pin_init(Spaces::new(), GFP_KERNEL)?,
            stats,
        })
    }

    /// The device that copies.
    pub(crate) fn link(&self) -> &Gate<Link> {
        &self.link
    }

    /// What is brought home before a CPU touches it.
    pub(crate) fn ahead(&self) -> &Ahead {
        &self.ahead
    }

    /// Whether requests to the device have to wait.
    pub(crate) fn hibernation(&self) -> &Hibernation {
        &self.hibernation
    }

    /// The processes whose memory is moved.
    pub(crate) fn spaces(&self) -> &Spaces {
        &self.spaces
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
