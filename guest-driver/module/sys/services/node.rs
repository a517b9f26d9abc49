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
    prelude::*,
    seq_file::SeqFile,
    sync::poll::{
        PollCondVar,
        PollTable, //
    },
    types::ForeignOwnable, //
};

/// What `poll()` says of an open file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Calls are served.
    Served,
    /// Calls wait, for something exceptional.
    Exception,
    /// Calls fail from now on.
    HungUp,
}

impl Readiness {
    /// As `poll()` has it.
    const fn mask(self) -> bindings::__poll_t {
        const POLLPRI: bindings::__poll_t = 0x2;
        const POLLOUT: bindings::__poll_t = 0x4;
        const POLLHUP: bindings::__poll_t = 0x10;
        const POLLWRNORM: bindings::__poll_t = 0x100;
        match self {
            Self::Served => POLLOUT | POLLWRNORM,
            Self::Exception => POLLPRI,
            Self::HungUp => POLLHUP,
        }
    }
}

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

    /// What `poll()` says of an open file, also after the node is gone. `wait_for` is called with what is woken when that
    /// changes, before it is looked at.
    fn poll(_file: &Self::File, _wait_for: &dyn Fn(&PollCondVar)) -> Readiness {
        Readiness::Served
    }

    /// Writes what `/proc/PID/fdinfo/FD` says of an open file beside what it says of all, also after the node is gone.
    fn show(_file: &Self::File, _out: &SeqFile) {}

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

impl<H: Handler> OpenFile<H> {
    /// The operations of the kernel's abstraction, which knows no `poll()`, and that.
    const OPERATIONS: bindings::file_operations = {
        let misc = MiscDeviceOptions { name: c"" }.into_raw::<Self>();
        // SAFETY: The pointer is to a constant.
        let mut operations = unsafe { *misc.fops };
        operations.poll = Some(Self::poll_callback);
        operations
    };

    /// # Safety
    ///
    /// `file` must be a file that [`OpenFile::open`] opened, and `table` null or valid.
    unsafe extern "C" fn poll_callback(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: The private data of an open file is what `open` returned, until it is released.
        let this = unsafe { <KBox<Self> as ForeignOwnable>::borrow((*file).private_data) };
        // SAFETY: By the safety requirement, for the duration of this call. No position is in use.
        let (file, table) = unsafe { (File::from_raw_file(file), PollTable::from_raw(table)) };
        H::poll(&this.0, &|changed| table.register_wait(file, changed)).mask()
    }
}

#[vtable]
impl<H: Handler> MiscDevice for OpenFile<H> {
    type Ptr = KBox<Self>;

    fn open(file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        // SAFETY: `MiscDeviceRegistration<OpenFile<_>>` is a private type of this module in effect:
        // only `Node::new` registers one, as the field `misc` of a `Node`. The misc core lets no
        // node be deregistered while it is being opened.
        let node = unsafe { &*container_of!(core::ptr::from_ref(misc), Node<H>, misc) };
        let opened = KBox::new(Self(node.handler.open()?), GFP_KERNEL)?;
        // SAFETY: The file is being opened, so nothing else uses it. The operations differ from those that it has by one
        // that is added, and have the same owner.
        unsafe { (*file.as_ptr()).f_op = &Self::OPERATIONS };
        Ok(opened)
    }

    fn ioctl(this: &Self, _file: &File, command: u32, argument: usize) -> Result<isize> {
        H::ioctl(&this.0, command, argument)
    }

    fn show_fdinfo(this: &Self, out: &SeqFile, _file: &File) {
        H::show(&this.0, out);
    }

    fn mmap(this: &Self, _file: &File, vma: &VmaNew) -> Result {
        H::mmap(&this.0, vma)
    }
}
