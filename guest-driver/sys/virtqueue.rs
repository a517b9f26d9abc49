// SPDX-License-Identifier: GPL-2.0-only

//! Virtqueues.
//!
//! C header: [`include/linux/virtio.h`](srctree/include/linux/virtio.h)
//!
//! # Lock order
//!
//! `Queue::ring` is a leaf and is taken in hard interrupt context.

use super::{
    bindings,
    request::{
        Idle,
        Request,
        Returned,
        Submitted, //
    },
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
    device::Bound,
    error::to_result,
    new_mutex,
    new_spinlock_irq,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::{
                Acquire,
                Full, //
            },
            Atomic, //
        },
        Arc,
        Mutex,
        SpinLockIrq,
        SpinLockIrqGuard, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
    types::ForeignOwnable, //
};

/// What is known of a ring, under its lock.
struct Ring {
    /// Null while the queues do not exist.
    vq: *mut bindings::virtqueue,
    /// Whether requests are accepted.
    open: bool,
    /// Tasks that need an interrupt to go on.
    sleepers: u32,
}

// SAFETY: The pointer is only used under the lock, or by whoever `Queue::notifying` counts.
unsafe impl Send for Ring {}

impl Ring {
    /// Takes all returned requests out of the ring.
    fn reap(&mut self) {
        if self.vq.is_null() {
            return;
        }
        loop {
            let mut used = 0u32;
            // SAFETY: `vq` is valid while it is not null, and the caller holds the ring's lock.
            let cookie = unsafe { bindings::virtqueue_get_buf(self.vq, &mut used) };
            if cookie.is_null() {
                return;
            }
            // SAFETY: Every cookie comes from `into_foreign` in `Queue::submit` and is returned by
            // the ring once.
            let request = unsafe { <Arc<Request> as ForeignOwnable>::from_foreign(cookie) };
            request.finish_used(used);
        }
    }

    /// Asks for an interrupt at the next returned request; reaps those that came meanwhile.
    fn arm(&mut self) {
        loop {
            self.reap();
            // SAFETY: As in `reap`.
            if self.vq.is_null() || unsafe { bindings::virtqueue_enable_cb(self.vq) } {
                return;
            }
        }
    }

    fn disarm(&mut self) {
        if !self.vq.is_null() {
            // SAFETY: As in `reap`.
            unsafe { bindings::virtqueue_disable_cb(self.vq) };
        }
    }

    /// Returns all requests that a reset device left in the ring.
    fn cancel(&mut self) {
        self.reap();
        if self.vq.is_null() {
            return;
        }
        loop {
            // SAFETY: As in `reap`; the device is reset, so the ring is quiet.
            let cookie = unsafe { bindings::virtqueue_detach_unused_buf(self.vq) };
            if cookie.is_null() {
                return;
            }
            // SAFETY: As in `reap`.
            let request = unsafe { <Arc<Request> as ForeignOwnable>::from_foreign(cookie) };
            request.finish_cancelled();
        }
    }
}

/// One virtqueue.
#[pin_data]
pub(crate) struct Queue {
    index: u16,
    #[pin]
    ring: SpinLockIrq<Ring>,
    /// Tasks that ring the doorbell, which they do without the lock.
    notifying: Atomic<u32>,
}

/// A DMA address that a [`Queue`] mapped.
#[derive(Clone, Copy)]
pub(crate) struct DmaAddress(u64);

impl DmaAddress {
    /// The address as the device sees it, bytes.
    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

/// Who reads memory that is mapped for the device, and who writes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DmaDirection {
    /// The device reads.
    ToDevice,
    /// The device writes.
    FromDevice,
}

impl DmaDirection {
    fn as_raw(self) -> bindings::dma_data_direction {
        match self {
            Self::ToDevice => bindings::dma_data_direction::DMA_TO_DEVICE,
            Self::FromDevice => bindings::dma_data_direction::DMA_FROM_DEVICE,
        }
    }
}

impl Queue {
    fn new(index: u16) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            index,
            ring <- new_spinlock_irq!(
                Ring { vq: null_mut(), open: false, sleepers: 0 },
                "virtqueue::Queue::ring"
            ),
            notifying: Atomic::new(0),
        })
    }

    /// The queue's number.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Hands the first `readable` bytes (none if 0) and then the first `writable` bytes of the
    /// request to the device. Says whether the doorbell was rung.
    ///
    /// # Errors
    ///
    /// `ENOSPC` no room in the ring, `EIO` queue broken, `ENODEV` queues closed, `EINVAL` lengths
    /// beyond the request's buffers.
    pub(crate) fn submit(
        &self,
        mut request: Idle,
        readable: usize,
        writable: usize,
    ) -> Result<(Submitted, bool), (Error, Idle)> {
        let ((readable_ptr, readable_max), (writable_ptr, writable_max)) = request.parts();
        if readable > readable_max || writable == 0 || writable > writable_max {
            return Err((EINVAL, request));
        }

        let mut out = bindings::scatterlist::default();
        let mut input = bindings::scatterlist::default();
        // SAFETY: Both lists have one element; the buffers are in the linear map (`KVec`), and the
        // lengths were checked above. CAST: A buffer is smaller than 4 GiB.
        unsafe {
            if readable > 0 {
                bindings::sg_init_one(&mut out, readable_ptr.cast(), readable as u32);
            }
            bindings::sg_init_one(&mut input, writable_ptr.cast(), writable as u32);
        }
        let mut both = [&raw mut out, &raw mut input];
        let (lists, outs) = if readable > 0 {
            (&mut both[..], 1)
        } else {
            (&mut both[1..], 0)
        };

        let ring = self.ring.lock();
        if !ring.open {
            return Err((ENODEV, request));
        }
        let vq = ring.vq;
        let (reference, submitted) = request.submit();
        let cookie = reference.into_foreign();
        // SAFETY: `vq` is valid while the ring is open, and locked; `lists` holds `outs` lists
        // to read and one to write; `cookie` is not null and keeps the buffers alive until the ring returns
        // it.
        let ret = unsafe {
            bindings::virtqueue_add_sgs(
                vq,
                lists.as_mut_ptr(),
                outs,
                1,
                cookie,
                bindings::GFP_ATOMIC,
            )
        };
        if let Err(error) = to_result(ret) {
            // SAFETY: The ring did not take the cookie, which `into_foreign` made above.
            let reference = unsafe { <Arc<Request> as ForeignOwnable>::from_foreign(cookie) };
            drop(ring);
            return Err((error, submitted.withdraw(reference)));
        }
        // SAFETY: As above.
        let kick = unsafe { bindings::virtqueue_kick_prepare(vq) };
        if kick {
            self.notifying.fetch_add(1, Full);
        }
        drop(ring);
        if kick {
            // SAFETY: The queues are deleted only when nobody is counted in `notifying`, so `vq`
            // is valid. The notification needs no lock.
            unsafe { bindings::virtqueue_notify(vq) };
            self.notifying.fetch_sub(1, Full);
        }
        Ok((submitted, kick))
    }

    /// Descriptors of the ring; 0 while the queues do not exist.
    pub(crate) fn descriptors(&self) -> usize {
        let ring = self.ring.lock();
        if ring.vq.is_null() {
            return 0;
        }
        // SAFETY: `vq` is valid while it is not null. CAST: A ring has at most 32768 descriptors.
        unsafe { bindings::virtqueue_get_vring_size(ring.vq) as usize }
    }

    /// Waits until the device returns the request: polls for `poll`, then sleeps, for `timeout`
    /// altogether.
    pub(crate) fn wait(&self, submitted: Submitted, poll: Delta, timeout: Delta) -> Returned {
        let start = Instant::<Monotonic>::now();
        loop {
            if submitted.first_byte_written() {
                self.ring.lock().reap();
            }
            if submitted.is_returned() {
                return submitted.try_take();
            }
            if start.elapsed() >= poll {
                break;
            }
            // SAFETY: Has no requirements.
            unsafe { bindings::cpu_relax() };
        }

        {
            let mut ring = self.ring.lock();
            ring.sleepers += 1;
            ring.arm();
        }
        loop {
            let elapsed = start.elapsed();
            if submitted.is_returned() || elapsed >= timeout {
                break;
            }
            let left = (timeout - elapsed).as_millis().max(1);
            // CAST: The time is positive. SAFETY: Has no requirements.
            submitted.sleep(unsafe { bindings::__msecs_to_jiffies(left as u32) });
        }
        {
            let mut ring = self.ring.lock();
            ring.sleepers -= 1;
            // An interrupt may have been lost to a busy line; the ring itself is the truth.
            ring.reap();
        }
        submitted.try_take()
    }

    /// Takes returned requests out of the ring.
    pub(crate) fn reap(&self) {
        self.ring.lock().reap();
    }

    /// Access to the queue's DMA mappings, for as long as the result lives. Interrupts are off
    /// meanwhile.
    pub(super) fn mapper(&self) -> Mapper<'_> {
        Mapper {
            ring: self.ring.lock(),
        }
    }

    /// Accepts no more requests, and waits until nobody rings the doorbell.
    fn close(&self) {
        self.ring.lock().open = false;
        while self.notifying.load(Acquire) != 0 {
            // SAFETY: Has no requirements.
            unsafe { bindings::cpu_relax() };
        }
    }

    /// Called by the ring in hard interrupt context.
    fn interrupt(&self) {
        let mut ring = self.ring.lock();
        ring.disarm();
        ring.reap();
        if ring.sleepers > 0 {
            ring.arm();
        }
    }
}

/// Makes and undoes DMA mappings for a queue's device.
pub(super) struct Mapper<'a> {
    ring: SpinLockIrqGuard<'a, Ring>,
}

impl Mapper<'_> {
    /// Maps `len` bytes from the start of `page`.
    ///
    /// # Errors
    ///
    /// `ENOMEM` no mapping could be made, `ENODEV` queues closed.
    ///
    /// # Safety
    ///
    /// `page` must be a valid system page with `len` bytes after it, and must stay so until
    /// [`Mapper::unmap`].
    pub(super) unsafe fn map(
        &self,
        page: NonNull<bindings::page>,
        len: usize,
        direction: DmaDirection,
    ) -> Result<DmaAddress> {
        if !self.ring.open {
            return Err(ENODEV);
        }
        let vq = self.ring.vq;
        // SAFETY: `vq` is valid while the ring is open and locked. The page is valid by the safety
        // requirement.
        unsafe {
            let direction = direction.as_raw();
            let address =
                bindings::virtqueue_map_page_attrs(vq, page.as_ptr(), 0, len, direction, 0);
            if bindings::virtqueue_map_mapping_error(vq, address) != 0 {
                return Err(ENOMEM);
            }
            Ok(DmaAddress(address))
        }
    }

    /// Undoes [`Mapper::map`].
    ///
    /// # Safety
    ///
    /// `address` must come from `map` for the same queue with the same length and direction, and
    /// must not be used any more by the device.
    pub(super) unsafe fn unmap(&self, address: DmaAddress, len: usize, direction: DmaDirection) {
        if !self.ring.vq.is_null() {
            // SAFETY: By the safety requirement.
            unsafe {
                bindings::virtqueue_unmap_page_attrs(
                    self.ring.vq,
                    address.0,
                    len,
                    direction.as_raw(),
                    0,
                )
            };
        }
    }
}

/// All queues of a device.
///
/// Dropping them resets the device.
///
/// # Invariants
///
/// While the queues exist (`live`), the device's `priv` points to `queues`, whose length is the
/// number of the device's queues.
#[pin_data(PinnedDrop)]
pub(crate) struct Virtqueues {
    vdev: ARef<virtio::Device>,
    names: KVec<&'static CStr>,
    queues: KVec<Pin<KBox<Queue>>>,
    #[pin]
    live: Mutex<bool>,
}

impl Virtqueues {
    /// Sets up queues 0 to `names.len() - 1` of a device that is being probed and whose features
    /// are negotiated, and tells the device that it may start (DRIVER_OK).
    ///
    /// # Errors
    ///
    /// What the transport reports; `ENOMEM`.
    pub(crate) fn new<'a>(
        vdev: &'a virtio::Device<Bound>,
        names: KVec<&'static CStr>,
    ) -> impl PinInit<Self, Error> + 'a {
        pin_init::pin_init_scope(move || {
            let mut queues = KVec::with_capacity(names.len(), GFP_KERNEL)?;
            for (index, _) in (0..).zip(&names) {
                queues.push(KBox::pin_init(Queue::new(index), GFP_KERNEL)?, GFP_KERNEL)?;
            }
            let vdev: ARef<virtio::Device> = vdev.into();
            Ok(try_pin_init!(&this in Self {
                vdev,
                names,
                queues,
                live <- new_mutex!(false, "virtqueue::Virtqueues::live"),
                _: {
                    // SAFETY: All fields are initialised.
                    let this = unsafe { this.as_ref() };
                    this.start(&mut this.live.lock())?;
                },
            }? Error))
        })
    }

    /// Finds the queues and starts the device.
    fn start(&self, live: &mut bool) -> Result {
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
        *live = true;
        for (queue, &vq) in self.queues.iter().zip(raw.iter()) {
            let mut ring = queue.ring.lock();
            ring.vq = vq;
            ring.open = true;
            // Whoever waits polls first; an interrupt is asked for when it is needed.
            ring.disarm();
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

    /// Accepts no more requests, resets the device, returns all requests to those who wait, and
    /// deletes the queues. May sleep. The device accesses no memory afterwards.
    pub(crate) fn stop(&self) {
        self.stop_locked(&mut self.live.lock());
    }

    fn stop_locked(&self, live: &mut bool) {
        if !*live {
            // The device may long be another driver's, or ours again with other queues.
            return;
        }
        for queue in &self.queues {
            queue.close();
        }
        self.vdev.reset();
        for queue in &self.queues {
            let mut ring = queue.ring.lock();
            ring.cancel();
            ring.vq = null_mut();
        }
        // SAFETY: The queues exist, the device is reset, and nobody uses them any more.
        unsafe { bindings::vhmm_virtio_del_vqs(self.vdev.as_raw()) };
        *live = false;
    }

    /// Starts a device that is stopped and whose features are negotiated.
    ///
    /// # Errors
    ///
    /// What the transport reports.
    #[cfg(CONFIG_PM_SLEEP)]
    pub(crate) fn resume(&self) -> Result {
        self.start(&mut self.live.lock())
    }

    /// Stops the device and starts it anew, with the same features.
    ///
    /// # Errors
    ///
    /// What the transport reports; the device is stopped then.
    pub(crate) fn restart(&self) -> Result {
        let mut live = self.live.lock();
        self.stop_locked(&mut live);
        self.vdev.renegotiate()?;
        self.start(&mut live)
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
