// SPDX-License-Identifier: GPL-2.0-only

//! Binds the driver to a virtio device: puts link, pool and engine together, and releases them.

mod debugfs;
mod node_number;

use crate::{
    device::{
        identity_of,
        AttachedDevice,
        Device, //
    },
    dmirror::Dmirror,
    link::{
        Link,
        FEATURES,
        UNWANTED_FEATURES, //
    },
    migration::{
        evict,
        HibernationListener, //
    },
    pool::Pool,
    session::Session,
    space::ContextThreads,
    stats::Stats,
    sys::{
        services::{
            hibernation::HibernationNotifier,
            log_limit::error_limited,
            module_ref::ModuleRef,
            node::Node, //
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
/// How long a system that shuts down waits for pages to migrate back.
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
    // First, so that nothing opens it while the rest goes.
    #[pin]
    _node: Node<Session>,
    _dmirror: Option<Pin<KBox<Node<Dmirror>>>>,
    #[cfg(CONFIG_PM_SLEEP)]
    #[pin]
    _hibernation: HibernationNotifier<HibernationListener>,
    #[pin]
    _debugfs: Scope<debugfs::Sources>,
    _number: NodeNumber,
    attached: AttachedDevice,
    // They serve what the pool waits for when the device is detached.
    _threads: ContextThreads,
}

impl virtio::Driver for HmmDriver {
    type Data<'bound> = Bound;
    const ID_TABLE: virtio::IdTable = &ID_TABLE;
    const FEATURES: &'static [u32] = FEATURES;
    const UNWANTED_FEATURES: &'static [u32] = UNWANTED_FEATURES;

    fn probe<'bound>(
        vdev: &'bound virtio::Device<Core<'_>>,
        setup: virtio::Setup<'bound>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let timeout = *crate::module_parameters::timeout_ms.value_ref();
            let timeout = Delta::from_millis(i64::from(timeout.clamp(100, 3_600_000)));
            let number = NodeNumber::new()?;

            let stats = Arc::new(Stats::new()?, GFP_KERNEL)?;
            let link = KBox::pin_init(Link::new(setup, timeout, stats.clone()), GFP_KERNEL)?;
            link.open()?;
            let bytes = link.limits().memory_bytes;
            if bytes > MEMORY_MOST {
                error_limited!(
                    vdev,
                    "no struct pages for {} MiB of device memory; {} MiB are the most\n",
                    bytes >> 20,
                    MEMORY_MOST >> 20
                );
                return Err(ERANGE);
            }
            let pages = usize::try_from(bytes >> PAGE_SHIFT)?;
            let pool = Pool::new(pages, identity_of(&link), stats.clone());
            let pool = pool.inspect_err(|error| {
                error_limited!(
                    vdev,
                    "no struct pages for {} MiB of device memory ({})\n",
                    bytes >> 20,
                    error.to_errno()
                );
            })?;
            let device = Device::new(link, pool.clone(), stats.clone())?;
            let attached = AttachedDevice::new(device.clone())?;
            let name = number.name();
            dev_info!(
                vdev,
                "{} MiB of device memory at /dev/{}\n",
                bytes >> 20,
                name
            );
            let threads = ContextThreads::new(device.clone())?;
            let session = Session::new(pool.clone())?;
            let dmirror = number
                .dmirror_name()
                .filter(|_| *crate::module_parameters::dmirror.value_ref() != 0)
                .map(|name| KBox::pin_init(Node::new(name, Dmirror::new(pool.clone())), GFP_KERNEL))
                .transpose()?;
            Ok(try_pin_init!(Bound {
                #[cfg(CONFIG_PM_SLEEP)]
                _hibernation <- HibernationNotifier::new(HibernationListener(device)),
                _debugfs <- debugfs::folder(name, stats, pool),
                _number: number,
                attached,
                _dmirror: dmirror,
                _threads: threads,
                _node <- Node::new(name, session),
            }? Error))
        })
    }

    fn unbind<'bound>(vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        let left = this.release(None);
        if left == 0 {
            return;
        }
        error_limited!(
            vdev,
            "{} bytes are lost on a device that does not answer; their users get SIGBUS\n",
            left
        );
        let pool = this.device().pool();
        match ModuleRef::try_new(kernel::module::this_module::<Module>()) {
            Some(hold) => {
                // The struct pages must stay as long as they are mapped, and so must the code that
                // serves faults on them. Nothing tells when the last is gone, so both stay.
                core::mem::forget(hold);
                core::mem::forget(pool.clone());
            }
            None => {
                // The module is being unloaded, which cannot be refused any more.
                while pool.pages().resident_bytes() > 0 {
                    fsleep(LOST_POLL);
                }
            }
        }
    }

    #[cfg(CONFIG_PM_SLEEP)]
    fn freeze<'bound>(vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        let device = this.device();
        // A system that hibernates may find the device without its contents.
        evict::all(device, Some(SHUTDOWN_PATIENCE));
        let left = device.pages().resident_bytes();
        if left > 0 {
            dev_warn!(vdev, "{} bytes stay on the device during sleep\n", left);
        }
        device.link().suspend();
    }

    #[cfg(CONFIG_PM_SLEEP)]
    fn restore<'bound>(
        _vdev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        this.device().link().resume()
    }

    fn shutdown<'bound>(vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        let left = this.release(Some(SHUTDOWN_PATIENCE));
        if left > 0 {
            dev_warn!(vdev, "{} bytes stay on the device\n", left);
        }
    }
}

impl Bound {
    fn device(&self) -> &Arc<Device> {
        self.attached.device()
    }

    /// Refuses requests from now on, migrates all pages back as long as the device works and for at
    /// most `patience`, parks the pool and stops the device. Returns the bytes that are left.
    fn release(&self, patience: Option<Delta>) -> u64 {
        let device = self.device();
        device.link().ask_to_stop();
        device.pool().drain();
        device.contexts().numbers.close();
        evict::all(device, patience);
        // Faults that are being served still need the device; later ones get SIGBUS.
        device.pool().detach();
        device.link().shut_down();
        device.pages().resident_bytes()
    }
}
