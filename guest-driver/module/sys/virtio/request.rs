// SPDX-License-Identifier: GPL-2.0-only

//! Requests: the buffers that one descriptor chain of a virtqueue hands to the device.
//!
//! A request is in one of two hands. [`Idle`] is the driver's: it may read and write the buffers.
//! [`Submitted`] is the device's: the driver may only wait. A queue turns the one into the other.

use crate::sys::bindings;
use core::cell::UnsafeCell;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Relaxed,
                Release, //
            },
            Atomic, //
        },
        Arc, //
    },
    types::Opaque, //
};

/// The driver owns the buffers.
const IDLE: u32 = 0;
/// The device owns the buffers.
const SUBMITTED: u32 = 1;
/// The device returned the buffers; `used` is valid.
const USED: u32 = 2;
/// The device was reset before it returned the buffers.
const CANCELLED: u32 = 3;

/// Buffers of a descriptor chain: one that the device reads, one that it writes.
///
/// # Invariants
///
/// Exactly one [`Idle`] or [`Submitted`] exists for a request. While `state` is `SUBMITTED` a
/// virtqueue holds a reference, and only the device accesses the buffers. Otherwise only the
/// holder of the [`Idle`] does.
#[pin_data]
pub(crate) struct Request {
    state: Atomic<u32>,
    used: Atomic<u32>,
    #[pin]
    returned: Opaque<bindings::completion>,
    readable: UnsafeCell<KVec<u8>>,
    writable: UnsafeCell<KVec<u8>>,
}

// SAFETY: The buffers are plain bytes; all else is made to be shared.
unsafe impl Send for Request {}
// SAFETY: The type invariant says who may access the buffers, and `state` orders the hand-over.
unsafe impl Sync for Request {}

impl Request {
    /// Gives the request back to whoever waits for it. Any context.
    fn finish(&self, state: u32, used: u32) {
        self.used.store(used, Relaxed);
        // SAFETY: The completion was initialised by `Idle::submit`.
        unsafe { bindings::complete_all(self.returned.get()) };
        // The state comes last: whoever sees it may hand the request to another queue at once, whose
        // lock is another one, and initialise the completion anew.
        self.state.store(state, Release);
    }

    /// The device returned the request and says that it wrote `used` bytes.
    pub(in crate::sys) fn finish_used(&self, used: u32) {
        self.finish(USED, used);
    }

    /// The device was reset and will not return the request.
    pub(in crate::sys) fn finish_cancelled(&self) {
        self.finish(CANCELLED, 0);
    }
}

/// A request in the hands of the driver.
///
/// # Examples
///
/// ```ignore
/// let mut request = Idle::new(8, 4)?;
/// request.readable().copy_from_slice(&question.to_le_bytes());
/// let (submitted, _) = queue.submit(request, 8, 4).map_err(|(error, _)| error)?;
/// match submitted.try_take() {
///     // The device may have written anything, and lie about how much.
///     Returned::Used(mut request, 4) => pr_info!("{:?}\n", request.writable()),
///     Returned::Used(..) => return Err(EIO),
///     Returned::Cancelled(_) => return Err(ENODEV),
///     // It is to be waited for, or the queue to be stopped.
///     Returned::Pending(submitted) => return Ok(Some(submitted)),
/// }
/// ```
pub(crate) struct Idle(Arc<Request>);

impl Idle {
    /// Allocates a request with `readable` bytes for the device to read and `writable` bytes for
    /// it to write. Both are physically contiguous.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(readable: usize, writable: usize) -> Result<Self> {
        let readable = KVec::from_elem(0u8, readable, GFP_KERNEL)?;
        let writable = KVec::from_elem(0u8, writable, GFP_KERNEL)?;
        let request = Arc::pin_init(
            pin_init!(Request {
                state: Atomic::new(IDLE),
                used: Atomic::new(0),
                returned <- Opaque::ffi_init(|slot: *mut bindings::completion| {
                    // SAFETY: `slot` is valid for writes.
                    unsafe { bindings::init_completion(slot) };
                }),
                readable: UnsafeCell::new(readable),
                writable: UnsafeCell::new(writable),
            }),
            GFP_KERNEL,
        )?;
        Ok(Self(request))
    }

    /// What the device will read.
    pub(crate) fn readable(&mut self) -> &mut [u8] {
        // SAFETY: By the type invariant of `Request` the holder of an `Idle` has the buffers to
        // itself, and `&mut self` proves that it is used once at a time.
        unsafe { &mut *self.0.readable.get() }
    }

    /// What the device wrote; any bytes.
    pub(crate) fn writable(&mut self) -> &mut [u8] {
        // SAFETY: As for `readable`.
        unsafe { &mut *self.0.writable.get() }
    }

    /// Hands the request to the device: the virtqueue's reference, and what the driver keeps.
    pub(in crate::sys) fn submit(self) -> (Arc<Request>, Submitted) {
        self.0.state.store(SUBMITTED, Relaxed);
        // SAFETY: Nobody waits for an idle request, and who returned it is done with it (`finish`), so
        // it may be initialised anew.
        unsafe { bindings::init_completion(self.0.returned.get()) };
        (self.0.clone(), Submitted(self.0))
    }

    /// Start and length of both buffers.
    pub(in crate::sys) fn parts(&mut self) -> ((*mut u8, usize), (*mut u8, usize)) {
        let readable = self.readable();
        let readable = (readable.as_mut_ptr(), readable.len());
        let writable = self.writable();
        (readable, (writable.as_mut_ptr(), writable.len()))
    }
}

/// A request in the hands of the device.
#[must_use = "a submitted request must be waited for, or its buffers are lost"]
pub(crate) struct Submitted(Arc<Request>);

/// How a request came back.
pub(crate) enum Returned {
    /// The device returned it and says that it wrote so many bytes. The number is not checked.
    Used(Idle, u32),
    /// The device was reset before.
    Cancelled(Idle),
    /// The device still has it.
    Pending(Submitted),
}

impl Submitted {
    /// Takes the request back if the device has returned it.
    pub(crate) fn try_take(self) -> Returned {
        // ORDERING: Acquire pairs with the release in `finish`, so the device's writes, which the
        // virtqueue ordered before its own, are visible.
        match self.0.state.load(Acquire) {
            USED => {
                let used = self.0.used.load(Relaxed);
                Returned::Used(self.into_idle(), used)
            }
            CANCELLED => Returned::Cancelled(self.into_idle()),
            _ => Returned::Pending(self),
        }
    }

    /// The request, if the device has returned it in whatever way.
    pub(crate) fn into_returned(self) -> Option<Idle> {
        match self.try_take() {
            Returned::Used(request, _) | Returned::Cancelled(request) => Some(request),
            Returned::Pending(_) => None,
        }
    }

    /// Whether the device has returned the request.
    pub(crate) fn is_returned(&self) -> bool {
        self.0.state.load(Acquire) != SUBMITTED
    }

    /// Whether the first byte of the writable buffer is no longer zero: a hint that the device is
    /// done, much cheaper than to look into the virtqueue.
    pub(in crate::sys) fn first_byte_written(&self) -> bool {
        // SAFETY: The vector itself is not changed while the request is submitted, so its pointer
        // is stable; the byte may be written by the device at any time, hence the volatile read.
        unsafe {
            let writable = &*self.0.writable.get();
            !writable.is_empty() && writable.as_ptr().read_volatile() != 0
        }
    }

    /// Sleeps until the device returns the request, at most `timeout` jiffies. It may be a moment
    /// more until [`Submitted::is_returned`] says so.
    pub(in crate::sys) fn sleep(&self, timeout: usize) {
        // SAFETY: The completion was initialised by `Idle::submit`.
        unsafe { bindings::wait_for_completion_timeout(self.0.returned.get(), timeout) };
    }

    /// Takes the request back that a ring did not accept, along with the reference that the ring
    /// was to have.
    pub(in crate::sys) fn withdraw(self, reference: Arc<Request>) -> Idle {
        drop(reference);
        self.into_idle()
    }

    fn into_idle(self) -> Idle {
        self.0.state.store(IDLE, Relaxed);
        Idle(self.0)
    }
}

#[kunit_tests(virtio_hmm_request)]
mod tests {
    use super::*;

    #[test]
    fn buffers_have_their_sizes_and_are_zero() -> Result {
        let mut request = Idle::new(3, 5)?;
        assert_eq!(request.readable().len(), 3);
        assert_eq!(request.writable().len(), 5);
        assert!(request.writable().iter().all(|&byte| byte == 0));
        Ok(())
    }

    #[test]
    fn a_request_is_the_devices_until_it_is_returned() -> Result {
        let (ring, submitted) = Idle::new(1, 1)?.submit();
        assert!(!submitted.is_returned());
        let Returned::Pending(submitted) = submitted.try_take() else {
            return Err(EINVAL);
        };
        assert!(!submitted.first_byte_written());
        ring.finish_used(9);
        drop(ring);
        assert!(submitted.is_returned());
        let Returned::Used(mut request, used) = submitted.try_take() else {
            return Err(EINVAL);
        };
        assert_eq!(used, 9);
        // It is the driver's again, and may be used once more.
        request.readable().fill(1);
        let (ring, submitted) = request.submit();
        assert!(!submitted.is_returned());
        ring.finish_cancelled();
        assert!(matches!(submitted.try_take(), Returned::Cancelled(_)));
        Ok(())
    }

    #[test]
    fn a_request_that_no_ring_took_is_idle() -> Result {
        let (ring, submitted) = Idle::new(2, 2)?.submit();
        let mut request = submitted.withdraw(ring);
        request.readable().fill(7);
        assert!(request.readable().iter().all(|&byte| byte == 7));
        Ok(())
    }
}
