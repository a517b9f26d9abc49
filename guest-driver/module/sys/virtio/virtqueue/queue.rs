// SPDX-License-Identifier: GPL-2.0-only

//! One queue: requests go out, and come back.

use super::ring::Ring;
use crate::sys::{
    bindings,
    virtio::request::{
        Idle,
        Request,
        Returned,
        Submitted, //
    }, //
};
use kernel::{
    error::to_result,
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Full, //
            },
            Atomic, //
        },
        Arc,
        SpinLockIrq, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    },
    types::ForeignOwnable, //
};

/// What a task is given to ring the doorbell that it has begun to ring.
const NOTIFY_PAUSE: Delta = Delta::from_micros(20);

/// One virtqueue.
///
/// # Examples
///
/// ```ignore
/// let mut request = Idle::new(8, 4)?;
/// request.readable().copy_from_slice(&7u64.to_le_bytes());
/// let (submitted, _) = queue.submit(request, 8, 4).map_err(|(error, _)| error)?;
/// let answer = match queue.wait(submitted, Delta::ZERO, Delta::from_secs(1)) {
///     Returned::Used(request, 4) => Ok(request.written().byte(0)),
///     Returned::Used(..) => Err(EIO),
///     Returned::Cancelled(_) => Err(ENODEV),
///     Returned::Pending(submitted) => {
///         // The device may write until it is reset.
///         queues.stop();
///         drop(submitted);
///         Err(ETIMEDOUT)
///     }
/// };
/// ```
#[pin_data]
pub(crate) struct Queue {
    index: u16,
    #[pin]
    pub(super) ring: SpinLockIrq<Ring>,
    /// Tasks that ring the doorbell, which they do without the lock.
    notifying: Atomic<u32>,
}

impl Queue {
    /// A queue that does not exist yet; [`Virtqueues`](super::Virtqueues) opens it.
    pub(in crate::sys) fn new(index: u16) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            index,
            ring <- new_spinlock_irq!(
                Ring::closed(),
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
            request.end_use();
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

        let mut ring = self.ring.lock();
        if !ring.open {
            request.end_use();
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
        ring.count_queued();
        // SAFETY: As above.
        let kick = unsafe { bindings::virtqueue_kick_prepare(vq) };
        if kick {
            self.notifying.fetch_add(1, Full);
        }
        drop(ring);
        if kick {
            // SAFETY: The queues are deleted only while `notifying` counts no task, so `vq`
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
        self.wait_in(submitted, poll, timeout, Submitted::sleep)
    }

    fn wait_in(
        &self,
        submitted: Submitted,
        poll: Delta,
        timeout: Delta,
        sleep: impl Fn(&Submitted, usize),
    ) -> Returned {
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

        self.ring.lock().begin_sleep();
        loop {
            let elapsed = start.elapsed();
            if submitted.is_returned() || elapsed >= timeout {
                break;
            }
            let left = (timeout - elapsed).as_millis().max(1);
            // CAST: The time is positive. SAFETY: Has no requirements.
            sleep(&submitted, unsafe {
                bindings::__msecs_to_jiffies(left as u32)
            });
        }
        self.ring.lock().end_sleep();
        submitted.try_take()
    }

    /// As [`Queue::wait`], for a thread of the kernel that may wait for ever: it does not count as busy
    /// meanwhile.
    pub(crate) fn wait_idly(&self, submitted: Submitted, poll: Delta, timeout: Delta) -> Returned {
        self.wait_in(submitted, poll, timeout, Submitted::sleep_idly)
    }

    /// Takes returned requests out of the ring.
    pub(crate) fn reap(&self) {
        self.ring.lock().reap();
    }

    /// Accepts no more requests, and waits until no task rings the doorbell. May sleep.
    ///
    /// The wait is bounded: `submit` counts a task only while the ring is open, so none joins any
    /// more, and between its count and its end a counted task writes one register and takes no lock.
    /// It can be preempted there, by this task too, so this task sleeps and does not spin.
    pub(super) fn close(&self) {
        self.ring.lock().open = false;
        while self.notifying.load(Acquire) != 0 {
            fsleep(NOTIFY_PAUSE);
        }
    }

    /// Called by the ring in hard interrupt context.
    pub(super) fn interrupt(&self) {
        self.ring.lock().interrupt();
    }
}
