// SPDX-License-Identifier: GPL-2.0-only

//! Binds the parts to a virtio device, and takes them apart again.

mod node_number;

use crate::{
    link::{
        Link,
        FEATURES,
        UNWANTED_FEATURES, //
    },
    migration::{
        evict,
        DeviceMemory,
        Door,
        Engine,
        HibernationListener, //
    },
    pool::Pool,
    session::Session,
    stats::{
        debugfs,
        Stats, //
    },
    sys::{
        device_memory::pagemap::PrivateMemory,
        services::{
            gate::Gate,
            hibernation::HibernationNotifier,
            module_hold::ModuleHold,
            node::Node,
            workqueue::WorkQueue, //
        },
        virtio, //
    }, //
};
use kernel::{
    debugfs::Scope,
    device::Core,
    page::PAGE_SHIFT,
    prelude::*,
    sync::Arc,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use node_number::NodeNumber;

kernel::module_device_table!("virtio", virtio::DeviceId, ID_TABLE, @none, [
    virtio::DeviceId::new(hmm_protocol::VIRTIO_ID),
]);

/// Most device memory that is served, bytes: what is kept of each page must fit one allocation.
const MEMORY_MOST: u64 = 1 << 40;
/// How long a system that goes down waits for pages to come home.
const SHUTDOWN_PATIENCE: Delta = Delta::from_millis(10_000);
/// How often an unload looks whether lost pages are gone.
const LOST_POLL: Delta = Delta::from_millis(100);

/// The module: a registered virtio driver.
#[pin_data]
pub(crate) struct Module {
    #[pin]
    _driver: kernel::driver::Registration<virtio::Adapter<HmmDriver>>,
}

impl kernel::InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _driver <- kernel::driver::Registration::new(
                <Self as kernel::ModuleMetadata>::NAME,
                module,
            ),
        })
    }
}

/// The virtio driver.
pub(crate) struct HmmDriver;

/// A device that the driver is bound to.
#[pin_data]
pub(crate) struct Bound {
    // No new opens before all else goes.
    #[pin]
    _node: Node<Session>,
    #[cfg(CONFIG_PM_SLEEP)]
    #[pin]
    _hibernation: HibernationNotifier<HibernationListener>,
    #[pin]
    _debugfs: Scope<debugfs::Sources>,
    _number: NodeNumber,
    door: Arc<Door>,
}

impl virtio::Driver for HmmDriver {
    type Data<'bound> = Bound;
    const ID_TABLE: virtio::IdTable = &ID_TABLE;
    const FEATURES: &'static [u32] = FEATURES;
    const UNWANTED_FEATURES: &'static [u32] = UNWANTED_FEATURES;

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let timeout = *crate::module_parameters::timeout_ms.value_ref();
            let timeout = Delta::from_millis(i64::from(timeout.clamp(100, 3_600_000)));
            let number = NodeNumber::new()?;

            let stats = Arc::new(Stats::new()?, GFP_KERNEL)?;
            let link = Link::new(vdev, timeout, stats.clone());
            let link = KBox::pin_init(Gate::new(link), GFP_KERNEL)?;
            link.value().open()?;
            let bytes = link.value().limits().memory_bytes;
            if bytes > MEMORY_MOST {
                dev_err!(
                    vdev,
                    "no struct pages for {} MiB of device memory; {} MiB are the most\n",
                    bytes >> 20,
                    MEMORY_MOST >> 20
                );
                return Err(ERANGE);
            }
            let pages = usize::try_from(bytes >> PAGE_SHIFT)?;
            let pool = Pool::new(pages, Engine::new(link, stats.clone())?)?;
            let memory = PrivateMemory::new(pages, c"virtio_hmm", pool);
            let memory = KBox::pin_init(memory, GFP_KERNEL).inspect_err(|error| {
                dev_err!(
                    vdev,
                    "no struct pages for {} MiB of device memory ({})\n",
                    bytes >> 20,
                    error.to_errno()
                );
            })?;
            let door: Arc<Door> = Arc::pin_init(Gate::new(Ok(memory)), GFP_KERNEL)?;
            let name = number.name();
            dev_info!(
                vdev,
                "{} MiB of device memory at /dev/{}\n",
                bytes >> 20,
                name
            );
            let workers = Arc::new(WorkQueue::new(c"virtio_hmm")?, GFP_KERNEL)?;
            let session = Session::new(door.clone(), workers.clone())?;
            let behind = door.clone();
            Ok(try_pin_init!(Bound {
                #[cfg(CONFIG_PM_SLEEP)]
                _hibernation <- HibernationNotifier::new(HibernationListener(door.clone())),
                _debugfs <- debugfs::folder(name, stats, door.clone()),
                _node <- Node::new(name, session),
                _number: number,
                door,
                // Last, since `unbind` undoes it.
                _: { behind.value().ops().server().ahead().open(workers, behind.clone()) },
            }? Error))
        })
    }

    fn unbind<'bound>(vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        let left = this.bring_home(None);
        if left == 0 {
            return;
        }
        dev_err!(
            vdev,
            "{} bytes are lost on a device that does not answer; their users get SIGBUS\n",
            left
        );
        match ModuleHold::try_new(kernel::module::this_module::<Module>()) {
            Some(hold) => {
                // The struct pages must stay as long as they are mapped, and so must the code that
                // serves faults on them. Nobody can tell when the last is gone, so both stay.
                core::mem::forget(hold);
                core::mem::forget(this.door.clone());
            }
            None => {
                // The module is being unloaded, which cannot be refused any more.
                while this.memory().ops().resident_bytes() > 0 {
                    fsleep(LOST_POLL);
                }
            }
        }
    }

    #[cfg(CONFIG_PM_SLEEP)]
    fn freeze<'bound>(vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        let memory = this.memory();
        let link = memory.ops().server().link().value();
        // A system that hibernates may find the device without its contents.
        evict::all(memory, link, Some(SHUTDOWN_PATIENCE));
        let left = memory.ops().resident_bytes();
        if left > 0 {
            dev_warn!(vdev, "{} bytes stay on the device during sleep\n", left);
        }
        link.suspend();
    }

    #[cfg(CONFIG_PM_SLEEP)]
    fn restore<'bound>(
        _vdev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        this.memory().ops().server().link().value().resume()
    }

    fn shutdown<'bound>(vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        let left = this.bring_home(Some(SHUTDOWN_PATIENCE));
        if left > 0 {
            dev_warn!(vdev, "{} bytes stay on the device\n", left);
        }
    }
}

impl Bound {
    fn memory(&self) -> &DeviceMemory {
        self.door.value()
    }

    /// Lets nobody in any more, brings all pages home, as long as the device works and for at most
    /// `patience`, and stops the device. Returns the bytes that are left.
    fn bring_home(&self, patience: Option<Delta>) -> u64 {
        let memory = self.memory();
        let link = memory.ops().server().link();
        link.value().ask_to_stop();
        memory.ops().server().ahead().close();
        self.door.close();
        evict::all(memory, link.value(), patience);
        // Faults that are being served still need the device; later ones get SIGBUS.
        link.close();
        link.value().shut_down();
        memory.ops().resident_bytes()
    }
}
