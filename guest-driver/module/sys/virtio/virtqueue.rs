// SPDX-License-Identifier: GPL-2.0-only

//! Virtqueues.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)
//!
//! # Lock order
//!
//! `Queue::ring` is a leaf and is taken in hard interrupt context.

mod mapper;
mod queue;
mod ring;
mod shared;

pub(crate) use self::{
    mapper::{
        DmaAddress,
        DmaDirection, //
    },
    queue::Queue,
    shared::SharedBuffer, //
};
use crate::sys::{
    bindings,
    virtio, //
};
use core::{
    pin::Pin,
    ptr::{
        null_mut,
        NonNull, //
    }, //
};
use kernel::{
    device,
    error::to_result,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::{
                Acquire,
                Release, //
            },
            Atomic, //
        },
        Mutex, //
    }, //
};

/// All queues of a device.
///
/// Dropping them resets the device.
///
/// # Invariants
///
/// While the queues exist ([`Life::Running`]), the device's `priv` points to `queues`, whose length is the
/// number of the device's queues.
///
/// # Examples
///
/// ```ignore
/// let mut names = KVec::new();
/// names.push(c"control", GFP_KERNEL)?;
/// names.push(c"event", GFP_KERNEL)?;
/// let queues = KBox::pin_init(Virtqueues::new(setup, names, 0), GFP_KERNEL)?;
/// let event = queues.get(1).ok_or(ENODEV)?;
/// ```
#[pin_data(PinnedDrop)]
pub(crate) struct Virtqueues {
    vdev: ARef<virtio::Device>,
    names: KVec<&'static CStr>,
    queues: KVec<Pin<KBox<Queue>>>,
    #[pin]
    life: Mutex<Life>,
    /// See [`Virtqueues::resets`].
    resets: Atomic<u32>,
}

/// What the queues of a device go through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    /// They do not exist and may be made.
    Stopped,
    /// They exist.
    Running,
    /// They do not exist and are never made again: the device may be another driver's.
    Ended,
}

impl Virtqueues {
    /// Sets up queues 0 to `names.len() - 1` of the device that is being probed, and tells it that it
    /// may start (DRIVER_OK). `resets` is what [`Virtqueues::resets`] begins with.
    ///
    /// # Errors
    ///
    /// What the transport reports; `ENOMEM`.
    pub(crate) fn new<'a>(
        setup: virtio::Setup<'a>,
        names: KVec<&'static CStr>,
        resets: u32,
    ) -> impl PinInit<Self, Error> + 'a {
        pin_init::pin_init_scope(move || {
            let mut queues = KVec::with_capacity(names.len(), GFP_KERNEL)?;
            for (index, _) in (0..).zip(&names) {
                queues.push(KBox::pin_init(Queue::new(index), GFP_KERNEL)?, GFP_KERNEL)?;
            }
            let vdev: ARef<virtio::Device> = setup.device().into();
            Ok(try_pin_init!(&this in Self {
                vdev,
                names,
                queues,
                life <- new_mutex!(Life::Stopped, "virtqueue::Virtqueues::life"),
                resets: Atomic::new(resets),
                _: {
                    // SAFETY: All fields are initialised.
                    let this = unsafe { this.as_ref() };
                    this.start(&mut this.life.lock())?;
                },
            }? Error))
        })
    }

    /// Finds the queues and starts the device, whose features are negotiated. The caller made sure
    /// that the queues are [`Life::Stopped`].
    fn start(&self, life: &mut Life) -> Result {
        let count = self.queues.len();
        let mut raw: KVec<*mut bindings::virtqueue> =
            KVec::from_elem(null_mut(), count, GFP_KERNEL)?;
        let mut infos = KVec::with_capacity(count, GFP_KERNEL)?;
        for name in &self.names {
            infos.push(
                bindings::virtqueue_info {
                    name: name.as_char_ptr(),
                    callback: Some(interrupt_callback),
                    ctx: false,
                },
                GFP_KERNEL,
            )?;
        }
        // INVARIANT: `priv` is set before the queues exist. The elements are boxed, and the vector
        // never changes.
        // SAFETY: The device is bound to this driver, which owns `priv`.
        unsafe { (*self.vdev.as_raw()).priv_ = self.queues.as_ptr().cast_mut().cast() };
        // CAST: A device has fewer than 65536 queues.
        // SAFETY: `raw` and `infos` have `count` elements.
        to_result(unsafe {
            bindings::vhmm_virtio_find_vqs(
                self.vdev.as_raw(),
                count as u32,
                raw.as_mut_ptr(),
                infos.as_mut_ptr(),
            )
        })?;
        let dma_device = raw.first().map(|&vq| {
            // SAFETY: The queues were just made.
            unsafe { bindings::virtqueue_dma_dev(vq) }
        });
        let Some(dma_device) = dma_device.and_then(NonNull::new) else {
            // The transport maps memory in a way of its own, which it can undo only while its queues
            // exist; a mapping may outlive them.
            // SAFETY: The queues were just made, and are not in use.
            unsafe { bindings::vhmm_virtio_del_vqs(self.vdev.as_raw()) };
            return Err(EOPNOTSUPP);
        };
        // SAFETY: The queues exist, so their device does.
        let dma_device = unsafe { device::Device::get_device(dma_device.as_ptr()) };
        *life = Life::Running;
        for (queue, &vq) in self.queues.iter().zip(raw.iter()) {
            let mut ring = queue.ring.lock();
            let before = ring.dma_device.replace(dma_device.clone());
            ring.vq = vq;
            ring.open = true;
            // A waiter polls first; an interrupt is asked for when it is needed.
            ring.disarm();
            drop(ring);
            drop(before);
        }
        self.vdev.ready();
        Ok(())
    }

    /// The device that the queues belong to.
    pub(crate) fn device(&self) -> &virtio::Device {
        &self.vdev
    }

    /// A queue by its number.
    pub(crate) fn get(&self, index: u16) -> Option<&Queue> {
        self.queues.get(usize::from(index)).map(|queue| &**queue)
    }

    /// How often running queues were stopped by a reset of the device. What the device was told before has
    /// no effect once the number has changed.
    pub(crate) fn resets(&self) -> u32 {
        self.resets.load(Acquire)
    }

    /// Accepts no more requests, resets the device, returns all requests to their waiters, and deletes
    /// the queues, for good. May sleep. The device accesses no memory afterwards.
    pub(crate) fn stop(&self) {
        let mut life = self.life.lock();
        self.stop_locked(&mut life);
        *life = Life::Ended;
    }

    /// As [`Self::stop`], until [`Self::restart`].
    pub(crate) fn pause(&self) {
        self.stop_locked(&mut self.life.lock());
    }

    fn stop_locked(&self, life: &mut Life) {
        if *life != Life::Running {
            // The device may be another driver's, or ours again with other queues.
            return;
        }
        for queue in &self.queues {
            queue.close();
        }
        self.vdev.reset();
        // ORDERING: Release pairs with the acquire in `resets`: a reader that sees the new number comes after
        // the reset.
        self.resets.fetch_add(1, Release);
        for queue in &self.queues {
            let mut ring = queue.ring.lock();
            ring.cancel();
            ring.vq = null_mut();
        }
        // SAFETY: The queues exist, the device is reset, and the queues are not in use any more.
        unsafe { bindings::vhmm_virtio_del_vqs(self.vdev.as_raw()) };
        *life = Life::Stopped;
    }

    /// Stops the device, unless it is stopped already, and starts it anew with the same features.
    ///
    /// # Errors
    ///
    /// `ENODEV` the queues were stopped for good; what the transport reports. The device is stopped
    /// then.
    pub(crate) fn restart(&self) -> Result {
        let mut life = self.life.lock();
        self.stop_locked(&mut life);
        if *life == Life::Ended {
            return Err(ENODEV);
        }
        // The bus may have negotiated with a stopped device since, at the end of sleep.
        self.vdev.reset();
        self.vdev.renegotiate()?;
        self.start(&mut life)
    }
}

#[pinned_drop]
impl PinnedDrop for Virtqueues {
    fn drop(self: Pin<&mut Self>) {
        self.stop();
    }
}

/// Called by the ring in hard interrupt context.
///
/// # Safety
///
/// `vq` must be a valid queue of a device that [`Virtqueues`] set up.
unsafe extern "C" fn interrupt_callback(vq: *mut bindings::virtqueue) {
    // SAFETY: The ring passes a valid queue of a device that `Virtqueues` set up: `priv` points to
    // an array of at least `index + 1` queues, which live until `del_vqs`, which waits for
    // callbacks.
    let queue = unsafe {
        let index = (*vq).index as usize;
        let queues = (*(*vq).vdev).priv_.cast::<Pin<KBox<Queue>>>();
        &*queues.add(index)
    };
    queue.interrupt();
}
