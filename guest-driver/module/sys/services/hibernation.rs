// SPDX-License-Identifier: GPL-2.0-only

//! Hears that the system is about to hibernate, while tasks still run and memory is not reserved
//! for the image yet.
//!
//! C header: [`include/linux/suspend.h`](srctree/include/linux/suspend.h)

use crate::sys::bindings;
use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// What hears of hibernation. The methods may sleep.
pub(crate) trait Hibernates: Send + Sync {
    /// The system is about to hibernate. An error refuses, and then [`Hibernates::over`] is not
    /// called.
    fn prepare(&self) -> Result;

    /// The system woke up, or did not hibernate after all.
    fn over(&self);
}

/// Passes on what the kernel tells until it is dropped.
///
/// # Invariants
///
/// `block` is registered from initialisation to drop.
#[pin_data(PinnedDrop)]
pub(crate) struct HibernationNotifier<H: Hibernates> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    hears: H,
}

// SAFETY: The kernel calls from any thread, and `H` is `Send` and `Sync`; nothing else is accessed.
unsafe impl<H: Hibernates> Send for HibernationNotifier<H> {}
// SAFETY: As above.
unsafe impl<H: Hibernates> Sync for HibernationNotifier<H> {}

impl<H: Hibernates> HibernationNotifier<H> {
    /// Registers `hears`.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub(crate) fn new(hears: H) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            hears,
            // INVARIANT: The initialiser registers the block.
            block <- Opaque::try_ffi_init(|block: *mut bindings::notifier_block| {
                let new = bindings::notifier_block {
                    notifier_call: Some(Self::notifier_callback),
                    ..Default::default()
                };
                // SAFETY: `block` is valid for writes.
                unsafe { block.write(new) };
                // SAFETY: The block is initialised, pinned, and unregistered before it goes. `hears`
                // was initialised before.
                to_result(unsafe { bindings::register_pm_notifier(block) })
            }),
        })
    }

    extern "C" fn notifier_callback(
        block: *mut bindings::notifier_block,
        event: usize,
        _data: *mut c_void,
    ) -> c_int {
        // SAFETY: The kernel passes the block that was registered, which is a field of this type and
        // is unregistered, with no call under way, before it goes.
        let this = unsafe { &*container_of!(Opaque::cast_from(block), Self, block) };
        // CAST: Events are small constants.
        match event as u32 {
            bindings::PM_HIBERNATION_PREPARE => match this.hears.prepare() {
                Ok(()) => bindings::NOTIFY_OK as c_int,
                // As notifier_from_errno().
                Err(error) => {
                    (bindings::NOTIFY_STOP_MASK as c_int)
                        | (bindings::NOTIFY_OK as c_int - error.to_errno())
                }
            },
            bindings::PM_POST_HIBERNATION => {
                this.hears.over();
                bindings::NOTIFY_OK as c_int
            }
            _ => bindings::NOTIFY_DONE as c_int,
        }
    }
}

#[pinned_drop]
impl<H: Hibernates> PinnedDrop for HibernationNotifier<H> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the block is registered. This waits for calls under way. The
        // call fails only for a block that is not registered.
        let _ = unsafe { bindings::unregister_pm_notifier(self.block.get()) };
    }
}
