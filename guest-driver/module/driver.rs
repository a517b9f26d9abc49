// SPDX-License-Identifier: GPL-2.0-only

//! Binds the driver to a virtio device: puts link, pool and engine together, and releases them. What a device leaves
//! when it is lost stays until it comes back, or is gone for good (`docs/loss.md`).

mod debugfs;
mod instance;
mod keeper;
mod node_number;

use crate::{
    device::{
        identity_of,
        AttachedDevice,
        Device, //
    },
    link::{
        uuid_of,
        Adoption,
        Link,
        FEATURES,
        UNWANTED_FEATURES, //
    },
    loss::{
        Loss,
        Presence, //
    },
    migration::{
        evict,
        HibernationListener, //
    },
    pool::Pool,
    space::ContextThreads,
    stats::Stats,
    sys::{
        services::{
            hibernation::HibernationNotifier,
            log_limit::error_limited,
            module_ref::ModuleRef, //
        },
        virtio, //
    }, //
};
use instance::Instance;
use keeper::{
    Instances,
    Keeper, //
};
use kernel::{
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
    // Dropped when no device is bound any more.
    _keeper: Keeper,
}

impl kernel::InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // First, since devices are probed within the registration.
            _keeper: Keeper::new()?,
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
pub(crate) struct Bound {
    #[cfg(CONFIG_PM_SLEEP)]
    _hibernation: Pin<KBox<HibernationNotifier<HibernationListener>>>,
    attached: AttachedDevice,
    instance: Arc<Instance>,
    instances: Arc<Instances>,
    // They serve what the pool waits for when the device is detached.
    _threads: ContextThreads,
}

/// What a device needs beside its instance.
struct Parts {
    #[cfg(CONFIG_PM_SLEEP)]
    hibernation: Pin<KBox<HibernationNotifier<HibernationListener>>>,
    attached: AttachedDevice,
    threads: ContextThreads,
}

impl Parts {
    /// Attaches a device to its pool.
    fn new(device: Arc<Device>) -> Result<Self> {
        let attached = AttachedDevice::new(device.clone())?;
        let threads = ContextThreads::new(device.clone())?;
        Ok(Self {
            #[cfg(CONFIG_PM_SLEEP)]
            hibernation: KBox::pin_init(
                HibernationNotifier::new(HibernationListener(device)),
                GFP_KERNEL,
            )?,
            attached,
            threads,
        })
    }
}

/// How long a device may take to answer.
fn timeout() -> Delta {
    let timeout = *crate::module_parameters::timeout_ms.value_ref();
    Delta::from_millis(i64::from(timeout.clamp(100, 3_600_000)))
}

/// How long users of a lost device's memory wait for its return.
fn loss_patience() -> Delta {
    let patience = *crate::module_parameters::loss_wait_ms.value_ref();
    Delta::from_millis(i64::from(patience.min(3_600_000)))
}

/// Binds a device, in the place of a lost one if it has the same memory.
fn bind(vdev: &virtio::Device<Core<'_>>, setup: virtio::Setup<'_>) -> Result<Bound> {
    let instances = Instances::of_module()?;
    let (instance, parts) = match instances.take_lost(&uuid_of(vdev)?) {
        Some(instance) => {
            let parts = bind_again(vdev, setup, &instance).inspect_err(|error| {
                error_limited!(
                    vdev,
                    "refused in the place of the device that was lost ({})\n",
                    error.to_errno()
                );
                instance.not_bound();
                instance.pool().loss().refuse();
            })?;
            (instance, parts)
        }
        None => bind_first(vdev, setup, &instances)?,
    };
    let Parts {
        attached,
        threads,
        #[cfg(CONFIG_PM_SLEEP)]
        hibernation,
    } = parts;
    Ok(Bound {
        #[cfg(CONFIG_PM_SLEEP)]
        _hibernation: hibernation,
        attached,
        instance,
        instances,
        _threads: threads,
    })
}

/// Binds a device whose contents belong to no earlier binding.
fn bind_first(
    vdev: &virtio::Device<Core<'_>>,
    setup: virtio::Setup<'_>,
    instances: &Instances,
) -> Result<(Arc<Instance>, Parts)> {
    let number = NodeNumber::new()?;
    let stats = Arc::new(Stats::new()?, GFP_KERNEL)?;
    let loss = Loss::new(loss_patience(), instances.wakeup().clone())?;
    let link = Link::new(setup, timeout(), stats.clone(), loss.clone(), None);
    let link = KBox::pin_init(link, GFP_KERNEL)?;
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
    let pool = Pool::new(pages, identity_of(&link), stats.clone(), loss);
    let pool = pool.inspect_err(|error| {
        error_limited!(
            vdev,
            "no struct pages for {} MiB of device memory ({})\n",
            bytes >> 20,
            error.to_errno()
        );
    })?;
    let instance = Instance::new(pool.clone(), stats.clone(), link.shape())?;
    let numbers = instance.numbers().clone();
    let parts = Parts::new(Device::new(link, pool, stats, numbers)?)?;
    dev_info!(
        vdev,
        "{} MiB of device memory at /dev/{}\n",
        bytes >> 20,
        number.name()
    );
    instances.add(instance.clone())?;
    instance
        .show(number)
        .inspect_err(|_| instances.remove(&instance))?;
    Ok((instance, parts))
}

/// Binds a device in the place of one that was lost, if it has the contents that the other had.
///
/// # Errors
///
/// `ESTALE` it is another one, has other contents, or comes too late; what the device reports.
fn bind_again(
    vdev: &virtio::Device<Core<'_>>,
    setup: virtio::Setup<'_>,
    instance: &Instance,
) -> Result<Parts> {
    let (pool, stats) = (instance.pool().clone(), instance.stats().clone());
    let loss = pool.shared_loss().clone();
    let identity = pool.identity();
    let adoption = Adoption {
        generation: identity.generation,
        key: identity.key,
        resets: instance.resets(),
    };
    let link = Link::new(setup, timeout(), stats.clone(), loss, Some(adoption));
    let link = KBox::pin_init(link, GFP_KERNEL)?;
    // Before the device is asked for anything: what opens no session changes no contents.
    if let Some(what) = instance.shape().difference(link.shape()) {
        error_limited!(vdev, "the device came back with another {}\n", what);
        return Err(ESTALE);
    }
    link.open().map_err(|_| ESTALE)?;
    let numbers = instance.numbers().clone();
    numbers.reopen();
    let device = Device::new(link, pool.clone(), stats, numbers)?;
    let parts = Parts::new(device.clone()).and_then(|parts| {
        pool.loss().came_back()?;
        Ok(parts)
    });
    // Spaces may have got contexts meanwhile, which must not count as those of the next device.
    let parts = parts.inspect_err(|_| instance.count_resets(device.link().resets()))?;
    instance.bound();
    dev_info!(
        vdev,
        "the device is back, with {} bytes as they were\n",
        pool.pages().resident_bytes()
    );
    Ok(parts)
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
        bind(vdev, setup)
    }

    fn unbind<'bound>(vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Self::Data<'bound>>) {
        // The host may have taken the device away, which the kernel does not tell.
        this.device().link().expect_alive();
        this.release(None);
        if this.instance.pool().loss().presence() == Presence::Present {
            // All that was on the device is in system memory.
            this.instance.pool().loss().announce();
            this.instances.remove(&this.instance);
            this.instance.hide();
        } else {
            this.park(vdev);
        }
    }

    fn reset_prepare<'bound>(
        _vdev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) {
        this.device().link().suspend();
    }

    fn reset_done<'bound>(
        _vdev: &'bound virtio::Device<Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result {
        this.device().link().resume()
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
        // It does not come back.
        this.instance.pool().loss().expire();
    }
}

impl Bound {
    fn device(&self) -> &Arc<Device> {
        self.attached.device()
    }

    /// Refuses requests from now on, migrates all pages back as long as the device works and for at most `patience`,
    /// parks the pool and stops the device. Returns the bytes that are left; the device counts as lost then.
    fn release(&self, patience: Option<Delta>) -> u64 {
        let device = self.device();
        let (link, pool) = (device.link(), device.pool());
        link.ask_to_stop();
        pool.drain();
        if !link.is_dead() {
            device.contexts().numbers.close();
            evict::all(device, patience);
        }
        let left = device.pages().resident_bytes();
        if left > 0 || link.is_dead() {
            pool.loss().lose();
        }
        if link.is_dead() {
            // The task that gives it up may not have reset it yet.
            device.end_access();
        }
        // Faults that are being served still need the device; later ones wait.
        pool.detach(device);
        link.shut_down();
        left
    }

    /// Leaves the instance without a device until one comes back.
    fn park(&self, vdev: &virtio::Device<Core<'_>>) {
        let pool = self.instance.pool();
        let module = ModuleRef::try_new(kernel::module::this_module::<Module>());
        let left = pool.pages().resident_bytes();
        if module.is_none() {
            // The module is being unloaded, which cannot be refused any more, and nothing can come back.
            pool.loss().expire();
        }
        match pool.loss().presence() {
            Presence::Gone => error_limited!(
                vdev,
                "{} bytes are lost on a device that does not answer; their users get SIGBUS\n",
                left
            ),
            _ => error_limited!(
                vdev,
                "the device is lost with {} bytes; their users wait for its return\n",
                left
            ),
        }
        if module.is_none() {
            // The struct pages must stay as long as they are mapped, and so must the code that serves faults on them.
            while pool.pages().resident_bytes() > 0 {
                fsleep(LOST_POLL);
            }
        }
        self.instance.unbound(self.device().link().resets(), module);
        self.instances.wakeup().wake();
    }
}
