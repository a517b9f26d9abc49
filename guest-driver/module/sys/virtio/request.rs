// SPDX-License-Identifier: GPL-2.0-only

//! Requests: the buffers that one descriptor chain of a virtqueue hands to the device.
//!
//! A request is in one of two states. [`Idle`] is the driver's: it may read and write the buffers.
//! [`Submitted`] is the device's: the driver may only wait. A queue turns the one into the other.
//!
//! A request can carry addresses of memory that the device is to access. A [`Carrier`] tells the owner
//! of that memory whether the device has the request, also if the [`Submitted`] was forgotten.

use crate::sys::bindings;
use core::{
    cell::UnsafeCell,
    marker::PhantomData, //
};
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
const IDLE: u64 = 0;
/// The device owns the buffers.
const SUBMITTED: u64 = 1;
/// The device returned the buffers; `used` is valid.
const USED: u64 = 2;
/// The device was reset before it returned the buffers.
const CANCELLED: u64 = 3;
/// The bits of [`Request::state`] that name the owner of the buffers; those above number the uses.
const OWNER: u64 = 3;
/// The first bit of the number.
const USE: u64 = OWNER + 1;

/// Buffers of a descriptor chain: one that the device reads, one that it writes.
///
/// # Invariants
///
/// Exactly one [`Idle`] or [`Submitted`] exists for a request. While `state` is `SUBMITTED` a
/// virtqueue holds a reference, and only the device accesses the buffers. Otherwise only the
/// holder of the [`Idle`] does.
#[pin_data]
pub(crate) struct Request {
    state: Atomic<u64>,
    used: Atomic<u32>,
    #[pin]
    returned: Opaque<bindings::completion>,
    readable: UnsafeCell<KVec<u8>>,
    writable: UnsafeCell<KVec<u8>>,
}

// SAFETY: The buffers are plain bytes; all else is made to be shared.
unsafe impl Send for Request {}
// SAFETY: By the type invariant the owner alone accesses the buffers, and `state` orders the hand-over.
unsafe impl Sync for Request {}

impl Request {
    /// Gives the request back to its waiter. Any context.
    fn finish(&self, owner: u64, used: u32) {
        self.used.store(used, Relaxed);
        // SAFETY: The completion was initialised by `Idle::submit`.
        unsafe { bindings::complete_all(self.returned.get()) };
        // The state comes last: a task that sees it may hand the request to another queue at once, whose
        // lock is another one, and initialise the completion anew.
        let number = self.state.load(Relaxed) & !OWNER;
        self.state.store(number | owner, Release);
    }

    /// The owner of the buffers. What the device wrote before it returned them is visible afterwards.
    fn owner(&self) -> u64 {
        // ORDERING: Acquire pairs with the release in `finish`, so the device's writes, which the
        // virtqueue ordered before its own, are visible.
        self.state.load(Acquire) & OWNER
    }

    /// What `state` is while the device has the request in this use.
    fn submitted(&self) -> u64 {
        (self.state.load(Relaxed) & !OWNER) | SUBMITTED
    }

    /// Begins the next use. The driver owns the buffers.
    fn begin_use(&self) {
        let number = self.state.load(Relaxed) & !OWNER;
        self.state.store(number.wrapping_add(USE) | IDLE, Relaxed);
    }

    /// The device returned the request and says that it wrote `used` bytes.
    pub(in crate::sys) fn finish_used(&self, used: u32) {
        self.finish(USED, used);
    }

    /// Start and length of the buffer that the device writes. No reference to its bytes may exist, not
    /// even once the device has returned it: a device that misbehaves writes at any time.
    fn writable(&self) -> (*mut u8, usize) {
        // SAFETY: The vector itself, unlike its bytes, never changes.
        let writable = unsafe { &*self.writable.get() };
        (writable.as_ptr().cast_mut(), writable.len())
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
///     Returned::Used(request, 4) => pr_info!("{:?}\n", request.written().read::<4>()),
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
    pub(crate) fn written(&self) -> Written<'_> {
        let (start, bytes) = self.0.writable();
        // INVARIANT: The request, which is borrowed, keeps the buffer.
        Written {
            start,
            bytes,
            _request: PhantomData,
        }
    }

    /// Sets what the device writes to zero, at most so many bytes of it.
    pub(crate) fn clear_written(&mut self, bytes: usize) {
        let (start, most) = self.0.writable();
        // SAFETY: The buffer has as many bytes, and there is no reference to them.
        unsafe { start.write_bytes(0, bytes.min(most)) };
    }

    /// This use of the request, for the owner of memory whose addresses it is to carry.
    pub(crate) fn carrier(&self) -> Carrier {
        Carrier {
            request: self.0.clone(),
            submitted: self.0.submitted(),
        }
    }

    /// Ends this use without a submission: what the next one submits carries other addresses. Without
    /// it, an owner of memory that the request was to carry takes the next submission for this one.
    pub(crate) fn end_use(&mut self) {
        self.0.begin_use();
    }

    /// Hands the request to the device: the virtqueue's reference, and what the driver keeps.
    pub(in crate::sys) fn submit(self) -> (Arc<Request>, Submitted) {
        self.0.state.store(self.0.submitted(), Relaxed);
        // SAFETY: No task waits for an idle request, and the one that returned it is done with it (`finish`), so
        // it may be initialised anew.
        unsafe { bindings::init_completion(self.0.returned.get()) };
        (self.0.clone(), Submitted(self.0))
    }

    /// Start and length of both buffers.
    pub(in crate::sys) fn parts(&mut self) -> ((*mut u8, usize), (*mut u8, usize)) {
        let readable = self.readable();
        let readable = (readable.as_mut_ptr(), readable.len());
        (readable, self.0.writable())
    }
}

/// What the device wrote into a request. The device may misbehave and go on writing, so the bytes can
/// only be copied, and two copies of the same byte can differ: check a copy and use that copy.
///
/// # Invariants
///
/// `start` points to `bytes` bytes that live for `'a` and that only the device writes meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Written<'a> {
    start: *const u8,
    bytes: usize,
    _request: PhantomData<&'a Request>,
}

impl Written<'_> {
    /// A copy of one byte; `None` beyond the buffer.
    pub(crate) fn byte(self, index: usize) -> Option<u8> {
        // SAFETY: By the type invariant. The read is volatile, since the device may write.
        (index < self.bytes).then(|| unsafe { self.start.add(index).read_volatile() })
    }

    /// A copy of the first bytes; `None` if there are not so many.
    pub(crate) fn read<const BYTES: usize>(self) -> Option<[u8; BYTES]> {
        let mut copy = [0; BYTES];
        for (index, byte) in copy.iter_mut().enumerate() {
            *byte = self.byte(index)?;
        }
        Some(copy)
    }
}

/// One use of a request: from when the driver gets it until the device returns it, or until it is put
/// to another use.
pub(crate) struct Carrier {
    request: Arc<Request>,
    submitted: u64,
}

impl Carrier {
    /// Whether the device has the request, hence may access the memory whose addresses it carries. Once
    /// the request has come back this is false for good: what follows is another use.
    pub(in crate::sys) fn is_with_device(&self) -> bool {
        // ORDERING: As in `Request::owner`.
        self.request.state.load(Acquire) == self.submitted
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
        match self.0.owner() {
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
        self.0.owner() != SUBMITTED
    }

    /// Whether the first byte of the writable buffer is no longer zero: a hint that the device is
    /// done, much cheaper than to look into the virtqueue.
    pub(in crate::sys) fn first_byte_written(&self) -> bool {
        let (start, bytes) = self.0.writable();
        // SAFETY: The buffer has `bytes` bytes. The device may write, hence the volatile read.
        bytes > 0 && unsafe { start.read_volatile() } != 0
    }

    /// Sleeps until the device returns the request, at most `timeout` jiffies. It may be a moment
    /// more until [`Submitted::is_returned`] says so.
    pub(in crate::sys) fn sleep(&self, timeout: usize) {
        // SAFETY: The completion was initialised by `Idle::submit`.
        unsafe { bindings::wait_for_completion_timeout(self.0.returned.get(), timeout) };
    }

    /// As [`Submitted::sleep`], for a thread of the kernel that gets no signals: it does not count as busy.
    pub(in crate::sys) fn sleep_idly(&self, timeout: usize) {
        // SAFETY: As above.
        unsafe {
            bindings::wait_for_completion_interruptible_timeout(self.0.returned.get(), timeout)
        };
    }

    /// Takes the request back that a ring did not accept, along with the reference that the ring
    /// was to have.
    pub(in crate::sys) fn withdraw(self, reference: Arc<Request>) -> Idle {
        drop(reference);
        self.into_idle()
    }

    fn into_idle(self) -> Idle {
        self.0.begin_use();
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
        assert_eq!(request.written().read::<5>(), Some([0; 5]));
        assert!(request.written().read::<6>().is_none());
        assert!(request.written().byte(5).is_none());
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
    fn what_the_device_writes_is_copied() -> Result {
        let mut request = Idle::new(1, 3)?;
        let (_, (start, bytes)) = request.parts();
        assert_eq!(bytes, 3);
        // SAFETY: The buffer has three bytes. This is the device that goes on writing.
        unsafe { start.write_bytes(7, 3) };
        let written = request.written();
        let copy = written.read::<3>();
        // SAFETY: As above.
        unsafe { start.write_volatile(8) };
        assert_eq!(copy, Some([7; 3]));
        assert_eq!(written.byte(0), Some(8));
        request.clear_written(2);
        assert_eq!(request.written().read::<3>(), Some([0, 0, 7]));
        request.clear_written(usize::MAX);
        assert_eq!(request.written().read::<3>(), Some([0; 3]));
        Ok(())
    }

    #[test]
    fn a_carrier_is_of_one_use() -> Result {
        let request = Idle::new(1, 1)?;
        let first = request.carrier();
        assert!(!first.is_with_device());
        let (ring, submitted) = request.submit();
        assert!(first.is_with_device());
        ring.finish_used(1);
        assert!(!first.is_with_device());
        let mut request = submitted.into_returned().ok_or(EINVAL)?;
        let unused = request.carrier();
        request.end_use();
        let second = request.carrier();
        let (ring, submitted) = request.submit();
        assert!(!first.is_with_device() && !unused.is_with_device());
        assert!(second.is_with_device());
        // The device has it all the same.
        drop(submitted);
        assert!(second.is_with_device());
        ring.finish_cancelled();
        assert!(!second.is_with_device());
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
