// SPDX-License-Identifier: GPL-2.0-only

//! A bound device: its link and its engine, and the pool that it is attached to.
//!
//! Link and engine go with the device. The pool stays as long as something refers to it: open files,
//! workers, or pages that could not be migrated back. They all refer to the pool, and reach the
//! device through [`Pool::attached`] while it is attached. So the last reference to a device is never
//! dropped by one of its own workers.

use crate::{
    contexts::{
        Contexts,
        Numbers, //
    },
    engine::Engine,
    link::Link,
    policy::Spaces,
    pool::{
        Identity,
        PagemapOps,
        Pages,
        Pool, //
    },
    stats::Stats,
    sys::{
        device_memory::pagemap::PrivateMemory,
        virtio, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The pool of a [`Device`].
pub(crate) type DevicePool = Pool<Device>;
/// The pagemap of a [`DevicePool`].
pub(crate) type DeviceMemory = PrivateMemory<PagemapOps<Device>>;

/// A device that works, or worked, with a pool.
pub(crate) struct Device {
    // Dropped, hence idle, before the link goes.
    engine: Pin<KBox<Engine>>,
    contexts: Pin<KBox<Contexts>>,
    link: Pin<KBox<Link>>,
    pool: Arc<DevicePool>,
    stats: Arc<Stats>,
}

impl Device {
    /// Puts a device together. `link` is open, and `numbers` are those of its contexts.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        link: Pin<KBox<Link>>,
        pool: Arc<DevicePool>,
        stats: Arc<Stats>,
        numbers: Arc<Numbers>,
    ) -> Result<Arc<Self>> {
        let engine = KBox::pin_init(Engine::new(link.max_batch_bytes()), GFP_KERNEL)?;
        let contexts = KBox::pin_init(Contexts::new(numbers), GFP_KERNEL)?;
        let device = Self {
            engine,
            contexts,
            link,
            pool,
            stats,
        };
        Ok(Arc::new(device, GFP_KERNEL)?)
    }

    /// Its queues.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Its migration engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Its contexts and jobs.
    pub(crate) fn contexts(&self) -> &Contexts {
        &self.contexts
    }

    /// The pool that it works with.
    pub(crate) fn pool(&self) -> &Arc<DevicePool> {
        &self.pool
    }

    /// The pool's pagemap.
    pub(crate) fn memory(&self) -> &DeviceMemory {
        self.pool.memory()
    }

    /// The records of the pool's pages.
    pub(crate) fn pages(&self) -> &Pages {
        self.pool.pages()
    }

    /// The processes whose memory is moved.
    pub(crate) fn spaces(&self) -> &Spaces {
        self.pool.spaces()
    }

    /// The counters.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The virtio device, for the log and for trace events.
    pub(crate) fn vdev(&self) -> &virtio::Device {
        self.link.device()
    }

    /// Stops it for good: it accesses nothing any more. Changes of an address space do not reach a device that is not
    /// attached, so this comes before [`Pool::detach`] unless all contexts have ended.
    pub(crate) fn end_access(&self) {
        // Also where another task stops it at this moment, which is waited for.
        self.link.shut_down();
        self.contexts.numbers.lose(&self.link);
    }

    /// Which contents its memory has.
    pub(crate) fn identity(&self) -> Identity {
        identity_of(&self.link)
    }
}

/// Which contents the memory behind a link has.
pub(crate) fn identity_of(link: &Link) -> Identity {
    Identity {
        uuid: link.uuid(),
        generation: link.generation(),
        key: link.key(),
    }
}

/// A device that is attached to its pool until this is dropped.
pub(crate) struct AttachedDevice(Arc<Device>);

impl AttachedDevice {
    /// Attaches a device to its pool.
    ///
    /// # Errors
    ///
    /// As [`Pool::attach`].
    pub(crate) fn new(device: Arc<Device>) -> Result<Self> {
        device.pool.attach(device.clone(), device.identity())?;
        Ok(Self(device))
    }

    /// The device.
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.0
    }
}

impl Drop for AttachedDevice {
    fn drop(&mut self) {
        self.0.link.ask_to_stop();
        self.0.end_access();
        self.0.pool.detach(&self.0);
    }
}
