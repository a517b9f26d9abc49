// SPDX-License-Identifier: GPL-2.0-only

//! The virtio bus.
//!
//! C headers: [`include/linux/virtio.h`](srctree/include/linux/virtio.h),
//! [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h)

use crate::sys::bindings;
use core::{
    marker::PhantomData,
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    device,
    device_id::RawDeviceId,
    driver,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::aref::AlwaysRefCounted,
    types::Opaque,
    ThisModule, //
};

/// An adapter for the registration of virtio drivers.
pub(crate) struct Adapter<T: Driver>(T);

// SAFETY:
// - `bindings::virtio_driver` is a C type declared as `repr(C)`.
// - `T::Data` is the type of the driver's device private data.
// - `struct virtio_driver` embeds a `struct device_driver` at `DEVICE_DRIVER_OFFSET`.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, driver);
}

// SAFETY: `unregister_virtio_driver()` may be called for whatever `__register_virtio_driver()`
// accepted.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        vdrv: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: The driver is not registered yet, so nothing else accesses its fields.
        unsafe {
            (*vdrv.get()).driver.name = name.as_char_ptr();
            (*vdrv.get()).id_table = T::ID_TABLE.as_ptr();
            (*vdrv.get()).feature_table = T::FEATURES.as_ptr();
            // CAST: A feature table has fewer than 64 entries.
            (*vdrv.get()).feature_table_size = T::FEATURES.len() as u32;
            (*vdrv.get()).validate = Some(Self::validate_callback);
            (*vdrv.get()).probe = Some(Self::probe_callback);
            (*vdrv.get()).remove = Some(Self::remove_callback);
            (*vdrv.get()).shutdown = Some(Self::shutdown_callback);
            (*vdrv.get()).reset_prepare = Some(Self::reset_prepare_callback);
            (*vdrv.get()).reset_done = Some(Self::reset_done_callback);
            #[cfg(CONFIG_PM_SLEEP)]
            {
                (*vdrv.get()).freeze = Some(Self::freeze_callback);
                (*vdrv.get()).restore = Some(Self::restore_callback);
            }
        }

        // SAFETY: `vdrv` is initialised and stays pinned until `unregister`.
        to_result(unsafe { bindings::__register_virtio_driver(vdrv.get(), module.as_ptr()) })
    }

    unsafe fn unregister(vdrv: &Opaque<Self::DriverType>) {
        // SAFETY: The caller guarantees that `register` succeeded.
        unsafe { bindings::unregister_virtio_driver(vdrv.get()) }
    }
}

impl<T: Driver> Adapter<T> {
    /// Called between the negotiation of features and `probe`.
    extern "C" fn validate_callback(vdev: *mut bindings::virtio_device) -> c_int {
        for &bit in T::UNWANTED_FEATURES {
            // SAFETY: The virtio bus calls this with a valid device that is not in use yet.
            unsafe { bindings::vhmm_virtio_clear_feature(vdev, bit) };
        }
        0
    }

    extern "C" fn probe_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The virtio bus calls this with a valid device, for the duration of the call.
        let vdev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        from_result(|| {
            let data = T::probe(vdev, Setup(vdev));

            vdev.as_ref().set_drvdata(data)?;
            Ok(0)
        })
    }

    extern "C" fn remove_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The virtio bus calls this with a valid device, for the duration of the call.
        let vdev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: `remove` follows a successful `probe`, which stored a `T::Data`.
        let data = unsafe { vdev.as_ref().drvdata_borrow::<T::Data<'_>>() };

        T::unbind(vdev, data);
        // The bus checks that the device is reset when this returns.
        vdev.reset();
    }

    extern "C" fn shutdown_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: The virtio bus calls this with a valid device, for the duration of the call.
        let vdev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: The bus calls `shutdown` only for a device that is bound to this driver.
        let data = unsafe { vdev.as_ref().drvdata_borrow::<T::Data<'_>>() };

        T::shutdown(vdev, data);
    }

    extern "C" fn reset_prepare_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The virtio bus calls this with a valid device, for the duration of the call.
        let vdev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: The bus calls `reset_prepare` only for a device that is bound to this driver.
        let data = unsafe { vdev.as_ref().drvdata_borrow::<T::Data<'_>>() };

        T::reset_prepare(vdev, data);
        0
    }

    extern "C" fn reset_done_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The virtio bus calls this with a valid device, for the duration of the call.
        let vdev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: The bus calls `reset_done` only for a device that is bound to this driver.
        let data = unsafe { vdev.as_ref().drvdata_borrow::<T::Data<'_>>() };

        from_result(|| T::reset_done(vdev, data).map(|()| 0))
    }

    #[cfg(CONFIG_PM_SLEEP)]
    extern "C" fn freeze_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The virtio bus calls this with a valid device, for the duration of the call.
        let vdev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: The bus calls `freeze` only for a device that is bound to this driver.
        let data = unsafe { vdev.as_ref().drvdata_borrow::<T::Data<'_>>() };

        T::freeze(vdev, data);
        0
    }

    #[cfg(CONFIG_PM_SLEEP)]
    extern "C" fn restore_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: The virtio bus calls this with a valid device, for the duration of the call.
        let vdev = unsafe { &*vdev.cast::<Device<device::CoreInternal<'_>>>() };

        // SAFETY: The bus calls `restore` only for a device that is bound to this driver.
        let data = unsafe { vdev.as_ref().drvdata_borrow::<T::Data<'_>>() };

        from_result(|| T::restore(vdev, data).map(|()| 0))
    }
}

/// An entry of a virtio driver's id table.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct DeviceId(bindings::virtio_device_id);

impl DeviceId {
    /// Matches a virtio device id of any vendor.
    pub(crate) const fn new(device: u32) -> Self {
        Self(bindings::virtio_device_id {
            device,
            vendor: u32::MAX, // VIRTIO_DEV_ANY_ID
        })
    }
}

// SAFETY: `DeviceId` is a transparent wrapper of `struct virtio_device_id`.
unsafe impl RawDeviceId for DeviceId {
    type RawType = bindings::virtio_device_id;
}

/// Id table of a virtio driver.
pub(crate) type IdTable = &'static dyn kernel::device_id::IdTable<DeviceId, ()>;

/// The permission to set up the queues of a device. The bus makes one for each probe and it is used
/// up, so a device never gets queues twice.
pub(crate) struct Setup<'a>(&'a Device<device::Bound>);

impl<'a> Setup<'a> {
    /// The device, which is being probed and whose features are negotiated.
    pub(crate) fn device(&self) -> &'a Device<device::Bound> {
        self.0
    }
}

/// A virtio driver.
///
/// # Examples
///
/// ```ignore
/// kernel::module_device_table!("virtio", virtio::DeviceId, SAMPLES, @none, [
///     virtio::DeviceId::new(42),
/// ]);
///
/// struct SampleDriver;
///
/// impl virtio::Driver for SampleDriver {
///     type Data<'bound> = Sample;
///
///     const ID_TABLE: virtio::IdTable = &SAMPLES;
///     const FEATURES: &'static [u32] = &[SAMPLE_F_FAST];
///     const UNWANTED_FEATURES: &'static [u32] = &[];
///
///     fn probe<'bound>(
///         vdev: &'bound virtio::Device<Core<'_>>,
///         setup: virtio::Setup<'bound>,
///     ) -> impl PinInit<Sample, Error> + 'bound {
///         pin_init::pin_init_scope(move || {
///             let mut names = KVec::new();
///             names.push(c"requests", GFP_KERNEL)?;
///             Ok(try_pin_init!(Sample {
///                 is_fast: vdev.has_feature(SAMPLE_F_FAST),
///                 queues <- Virtqueues::new(setup, names, 0),
///             }? Error))
///         })
///     }
///
///     fn unbind<'bound>(_vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Sample>) {
///         this.queues.stop();
///     }
///
///     fn shutdown<'bound>(_vdev: &'bound virtio::Device<Core<'_>>, this: Pin<&Sample>) {
///         this.queues.stop();
///     }
/// }
///
/// type Registration = kernel::driver::Registration<virtio::Adapter<SampleDriver>>;
/// ```
pub(crate) trait Driver {
    /// Private data of a bound device. Dropped by the driver core after [`Driver::unbind`].
    type Data<'bound>: Send + 'bound;

    /// The devices that the driver serves.
    const ID_TABLE: IdTable;

    /// Feature bits that the driver understands.
    const FEATURES: &'static [u32];

    /// Feature bits of the ring or the transport that the kernel would accept for the driver, and
    /// that it does without.
    const UNWANTED_FEATURES: &'static [u32];

    /// Binds the driver to a device.
    ///
    /// On error the device must be left reset, which [`super::virtqueue::Virtqueues`] does when it
    /// is dropped.
    fn probe<'bound>(
        vdev: &'bound Device<device::Core<'_>>,
        setup: Setup<'bound>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// Unbinds the driver. The device still works; it is reset as soon as this returns.
    fn unbind<'bound>(vdev: &'bound Device<device::Core<'_>>, this: Pin<&Self::Data<'bound>>);

    /// The transport is about to reset the device. When this returns the device must be reset and have no queues.
    fn reset_prepare<'bound>(
        vdev: &'bound Device<device::Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    );

    /// The transport has reset the device, and the features are negotiated again.
    ///
    /// # Errors
    ///
    /// The device cannot be used any more.
    fn reset_done<'bound>(
        vdev: &'bound Device<device::Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result;

    /// The system goes to sleep. When this returns the device must be reset and have no queues.
    #[cfg(CONFIG_PM_SLEEP)]
    fn freeze<'bound>(vdev: &'bound Device<device::Core<'_>>, this: Pin<&Self::Data<'bound>>);

    /// The system wakes up. The device is reset, and the features are negotiated again.
    ///
    /// # Errors
    ///
    /// The device cannot be used any more.
    #[cfg(CONFIG_PM_SLEEP)]
    fn restore<'bound>(
        vdev: &'bound Device<device::Core<'_>>,
        this: Pin<&Self::Data<'bound>>,
    ) -> Result;

    /// The system goes down. Replaces the bus's own action, which is to break all queues.
    fn shutdown<'bound>(vdev: &'bound Device<device::Core<'_>>, this: Pin<&Self::Data<'bound>>);
}

/// A virtio device.
///
/// # Invariants
///
/// Wraps a valid `struct virtio_device`.
#[repr(transparent)]
pub(crate) struct Device<Ctx: device::DeviceContext = device::Normal>(
    Opaque<bindings::virtio_device>,
    PhantomData<Ctx>,
);

impl<Ctx: device::DeviceContext> Device<Ctx> {
    pub(in crate::sys) fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }

    /// Whether the feature was offered and accepted.
    pub(crate) fn has_feature(&self, bit: u32) -> bool {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::vhmm_virtio_has_feature(self.as_raw(), bit) }
    }

    /// Resets the device. When this returns the device no longer accesses any memory.
    pub(in crate::sys) fn reset(&self) {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::virtio_reset_device(self.as_raw()) }
    }

    /// Tells the device that its queues are set up (DRIVER_OK).
    pub(in crate::sys) fn ready(&self) {
        // SAFETY: By the type invariant the device is valid.
        unsafe { bindings::vhmm_virtio_device_ready(self.as_raw()) }
    }

    /// Negotiates the same features again, after a reset.
    ///
    /// # Errors
    ///
    /// `ENODEV` the device no longer accepts them.
    pub(in crate::sys) fn renegotiate(&self) -> Result {
        let vdev = self.as_raw();
        // SAFETY: By the type invariant the device is valid; it is reset, and the caller owns it.
        unsafe {
            bindings::virtio_add_status(
                vdev,
                bindings::VIRTIO_CONFIG_S_ACKNOWLEDGE | bindings::VIRTIO_CONFIG_S_DRIVER,
            );
            to_result(bindings::vhmm_virtio_finalize_features(vdev))?;
            bindings::virtio_add_status(vdev, bindings::VIRTIO_CONFIG_S_FEATURES_OK);
            let status = u32::from(bindings::vhmm_virtio_get_status(vdev));
            if status & bindings::VIRTIO_CONFIG_S_FEATURES_OK == 0 {
                return Err(ENODEV);
            }
        }
        Ok(())
    }
}

impl Device<device::Bound> {
    /// Reads configuration space at `offset` bytes into `buffer`, byte by byte with respect to the
    /// configuration's generation.
    pub(crate) fn read_config(&self, offset: u32, buffer: &mut [u8]) {
        // SAFETY: `buffer` is valid for writes of its length; the device is valid.
        unsafe {
            bindings::vhmm_virtio_read_config(
                self.as_raw(),
                offset,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        }
    }
}

// SAFETY: `virtio::Device` is a transparent wrapper that does not depend on its generic argument.
kernel::impl_device_context_deref!(unsafe { Device });
kernel::impl_device_context_into_aref!(Device);

// SAFETY: The reference count of `struct device` keeps the containing `struct virtio_device`.
unsafe impl AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: A shared reference proves a non-zero reference count.
        unsafe { bindings::get_device(self.as_device_raw()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference; the pointer is valid until then.
        unsafe { bindings::put_device(obj.as_ref().as_device_raw()) };
    }
}

impl<Ctx: device::DeviceContext> Device<Ctx> {
    /// The device of the driver core.
    pub(in crate::sys) fn as_device_raw(&self) -> *mut bindings::device {
        // SAFETY: By the type invariant the device is valid; only an address is computed.
        unsafe { &raw mut (*self.as_raw()).dev }
    }
}

impl<Ctx: device::DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        // SAFETY: `dev` is embedded in a valid `struct virtio_device`, and has the same context.
        unsafe { device::Device::from_raw(self.as_device_raw()) }
    }
}

// SAFETY: A `Device` may be released from any thread.
unsafe impl Send for Device {}

// SAFETY: All methods with a shared reference are thread safe.
unsafe impl Sync for Device {}

// SAFETY: As for `Device<Normal>`; the context only adds what a bound device allows.
unsafe impl Sync for Device<device::Bound> {}
