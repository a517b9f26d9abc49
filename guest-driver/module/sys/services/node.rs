// SPDX-License-Identifier: GPL-2.0-only

//! Device nodes whose open files find the device that they belong to.
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h)

use crate::sys::bindings;
use core::ptr::null_mut;
use kernel::{
    container_of,
    fs::File,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    mm::virt::VmaNew,
    prelude::*, //
};

/// What stands behind a device node.
pub(crate) trait Handler: Send + Sync + 'static {
    /// What belongs to an open file. It is dropped when the file's last descriptor is closed.
    type File: Send + Sync + 'static;

    /// The node is opened.
    ///
    /// # Errors
    ///
    /// Whatever `open()` is to return.
    fn open(&self) -> Result<Self::File>;

    /// An ioctl on an open file, also after the node is gone.
    ///
    /// # Errors
    ///
    /// Whatever `ioctl()` is to return.
    fn ioctl(file: &Self::File, command: u32, argument: usize) -> Result<isize>;

    /// An open file is mapped, also after the node is gone.
    ///
    /// # Errors
    ///
    /// Whatever `mmap()` is to return; `ENODEV` unless a node says otherwise.
    fn mmap(_file: &Self::File, _vma: &VmaNew) -> Result {
        Err(ENODEV)
    }
}

/// A registered misc device.
///
/// # Examples
///
/// ```ignore
/// let node = KBox::pin_init(Node::new(c"sample0", handler), GFP_KERNEL)?;
/// // It cannot be opened any more; files that are open keep what `Handler::open` returned.
/// drop(node);
/// ```
#[pin_data]
pub(crate) struct Node<H: Handler> {
    // Deregistered before the handler goes.
    #[pin]
    misc: MiscDeviceRegistration<OpenFile<H>>,
    handler: H,
}

impl<H: Handler> Node<H> {
    /// Registers `/dev/NAME`.
    ///
    /// # Errors
    ///
    /// What `misc_register()` reports, `EEXIST` among them.
    pub(crate) fn new(name: &'static CStr, handler: H) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // The node may be opened as soon as it is registered, so the handler comes first.
            handler,
            misc <- MiscDeviceRegistration::register(MiscDeviceOptions { name }),
        })
    }
}

impl<H: Handler> Node<H> {
    /// Tells user space of a change, by a uevent with `variable` (`NAME=VALUE`) in its environment. May sleep.
    pub(crate) fn announce(&self, variable: &CStr) {
        let mut environment = [variable.as_char_ptr().cast_mut(), null_mut()];
        // SAFETY: The node is registered, so its device and the device's kobject are valid. The list ends with null,
        // and the kernel copies the string.
        let sent = unsafe {
            let device = (*self.misc.as_raw()).this_device;
            bindings::kobject_uevent_env(
                &raw mut (*device).kobj,
                bindings::kobject_action_KOBJ_CHANGE,
                environment.as_mut_ptr(),
            )
        };
        if sent != 0 {
            pr_debug!("a uevent could not be sent ({})\n", sent);
        }
    }
}

/// The private data of an open file.
pub(crate) struct OpenFile<H: Handler>(H::File);

#[vtable]
impl<H: Handler> MiscDevice for OpenFile<H> {
    type Ptr = KBox<Self>;

    fn open(_file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        // SAFETY: `MiscDeviceRegistration<OpenFile<_>>` is a private type of this module in effect:
        // only `Node::new` registers one, as the field `misc` of a `Node`. The misc core lets no
        // node be deregistered while it is being opened.
        let node = unsafe { &*container_of!(core::ptr::from_ref(misc), Node<H>, misc) };
        Ok(KBox::new(Self(node.handler.open()?), GFP_KERNEL)?)
    }

    fn ioctl(this: &Self, _file: &File, command: u32, argument: usize) -> Result<isize> {
        H::ioctl(&this.0, command, argument)
    }

    fn mmap(this: &Self, _file: &File, vma: &VmaNew) -> Result {
        H::mmap(&this.0, vma)
    }
}
