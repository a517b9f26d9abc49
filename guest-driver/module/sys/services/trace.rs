// SPDX-License-Identifier: GPL-2.0-only

//! The module's trace events.
//!
//! `kernel::tracepoint::declare_trace!` looks for tracepoints among the kernel's own bindings, so
//! those of a module need the few lines below. While an event is off, it costs a no-operation
//! instruction in its place. On a kernel without tracepoints nothing is left of it.
//!
//! C header: `c/events.h`

#[cfg(CONFIG_TRACEPOINTS)]
use crate::sys::bindings;
use crate::sys::virtio;
use core::ops::Range;
use kernel::{
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// Calls a tracepoint if it is on.
macro_rules! emit {
    ($tracepoint:path, $call:path, $($argument:expr),* $(,)?) => {{
        #[cfg(CONFIG_TRACEPOINTS)]
        {
            // SAFETY: The tracepoint is one that c/events.c defines.
            let on = unsafe {
                kernel::jump_label::static_branch_unlikely!($tracepoint, bindings::tracepoint, key)
            };
            if on {
                // SAFETY: The device is valid for as long as it is borrowed, and each word is a
                // string of static lifetime with its own length. The tracepoint copies all of it.
                unsafe { $call($($argument),*) };
            }
        }
        #[cfg(not(CONFIG_TRACEPOINTS))]
        {
            $( let _ = $argument; )*
        }
    }};
}

/// The start of a word, as the events take it.
fn start(word: &'static str) -> *const u8 {
    word.as_ptr()
}

/// The length of a word, bytes.
fn length(word: &'static str) -> u32 {
    // CAST: A word is short.
    word.len() as u32
}

/// Nanoseconds that have passed since then.
fn nanoseconds_since(then: Instant<Monotonic>) -> u64 {
    // CAST: Time does not go backwards on this clock.
    then.elapsed().as_nanos().max(0) as u64
}

/// A batch as its events tell it.
#[derive(Clone, Copy)]
pub(crate) struct BatchEvent {
    /// The number that the device's own trace knows the batch by.
    pub(crate) cookie: u64,
    /// The index of its queue.
    pub(crate) queue: u16,
    /// Why memory moves.
    pub(crate) trigger: &'static str,
    /// To which side.
    pub(crate) direction: &'static str,
    /// Its entries.
    pub(crate) entries: u32,
    /// What all entries stand for, bytes.
    pub(crate) bytes: u64,
}

/// The batch goes to the device now. Any context.
pub(crate) fn batch_submit(device: &virtio::Device, batch: &BatchEvent) {
    emit!(
        bindings::__tracepoint_vhmm_batch_submit,
        bindings::rust_do_trace_vhmm_batch_submit,
        device.as_device_raw(),
        batch.cookie,
        u32::from(batch.queue),
        start(batch.trigger),
        length(batch.trigger),
        start(batch.direction),
        length(batch.direction),
        batch.entries,
        batch.bytes,
    );
}

/// The driver is done with the batch: `entries_ok` of its entries were executed. It was submitted at
/// `start_time`. Any context.
pub(crate) fn batch_done(
    device: &virtio::Device,
    batch: &BatchEvent,
    result: &'static str,
    entries_ok: u32,
    start_time: Instant<Monotonic>,
) {
    emit!(
        bindings::__tracepoint_vhmm_batch_done,
        bindings::rust_do_trace_vhmm_batch_done,
        device.as_device_raw(),
        batch.cookie,
        u32::from(batch.queue),
        start(batch.direction),
        length(batch.direction),
        start(result),
        length(result),
        batch.entries,
        entries_ok,
        batch.bytes,
        nanoseconds_since(start_time),
    );
}

/// A CPU fault at `address` was served, and migrated `bytes` back. It began at `start_time`. Any
/// context.
pub(crate) fn fault(
    device: &virtio::Device,
    address: usize,
    result: &'static str,
    bytes: u64,
    start_time: Instant<Monotonic>,
) {
    emit!(
        bindings::__tracepoint_vhmm_fault,
        bindings::rust_do_trace_vhmm_fault,
        device.as_device_raw(),
        address,
        start(result),
        length(result),
        bytes,
        nanoseconds_since(start_time),
    );
}

/// `bytes` migrated back from the part of device memory that begins at `device_address`. Any context.
pub(crate) fn evict(
    device: &virtio::Device,
    trigger: &'static str,
    device_address: u64,
    bytes: u64,
) {
    emit!(
        bindings::__tracepoint_vhmm_evict,
        bindings::rust_do_trace_vhmm_evict,
        device.as_device_raw(),
        start(trigger),
        length(trigger),
        device_address,
        bytes,
    );
}

/// So many pages within `range` did not move. Any context.
pub(crate) fn skip(
    device: &virtio::Device,
    trigger: &'static str,
    reason: &'static str,
    range: &Range<usize>,
    pages: u64,
) {
    emit!(
        bindings::__tracepoint_vhmm_skip,
        bindings::rust_do_trace_vhmm_skip,
        device.as_device_raw(),
        start(trigger),
        length(trigger),
        start(reason),
        length(reason),
        range.start,
        range.end,
        pages,
    );
}

/// The device is given up, and what is on it is lost. Any context.
pub(crate) fn loss(device: &virtio::Device, cause: &'static str, generation: u64) {
    emit!(
        bindings::__tracepoint_vhmm_loss,
        bindings::rust_do_trace_vhmm_loss,
        device.as_device_raw(),
        start(cause),
        length(cause),
        generation,
    );
}

/// Users of `node` are told of a change: its device is lost, back, refused or gone, with `resident` bytes on it. Any context.
pub(crate) fn presence(node: &'static CStr, word: &'static str, resident: u64) {
    emit!(
        bindings::__tracepoint_vhmm_presence,
        bindings::rust_do_trace_vhmm_presence,
        node.as_char_ptr(),
        start(word),
        length(word),
        resident,
    );
}

/// A device fault as its event tells it.
#[derive(Clone, Copy)]
pub(crate) struct DeviceFaultEvent {
    /// The number of the context.
    pub(crate) context: u32,
    /// The number that the device knows the fault by.
    pub(crate) number: u64,
    /// The virtual address, bytes.
    pub(crate) address: u64,
    /// What the job was about to do.
    pub(crate) access: &'static str,
}

/// A device fault was answered, and mapped `pages`. The driver heard of it at `start_time`. Any context.
pub(crate) fn device_fault(
    device: &virtio::Device,
    fault: &DeviceFaultEvent,
    result: &'static str,
    pages: u64,
    start_time: Instant<Monotonic>,
) {
    emit!(
        bindings::__tracepoint_vhmm_device_fault,
        bindings::rust_do_trace_vhmm_device_fault,
        device.as_device_raw(),
        fault.context,
        fault.number,
        fault.address,
        start(fault.access),
        length(fault.access),
        start(result),
        length(result),
        pages,
        nanoseconds_since(start_time),
    );
}

/// A range was taken away from a context, which began at `start_time`. Any context.
pub(crate) fn invalidate(
    device: &virtio::Device,
    context: u32,
    cause: &'static str,
    range: &Range<u64>,
    start_time: Instant<Monotonic>,
) {
    emit!(
        bindings::__tracepoint_vhmm_invalidate,
        bindings::rust_do_trace_vhmm_invalidate,
        device.as_device_raw(),
        context,
        start(cause),
        length(cause),
        range.start,
        range.end,
        nanoseconds_since(start_time),
    );
}

/// A job was handed to the device, which accepted it or did not. Any context.
pub(crate) fn job_submit(
    device: &virtio::Device,
    context: u32,
    cookie: u64,
    kind: &'static str,
    result: &'static str,
) {
    emit!(
        bindings::__tracepoint_vhmm_job_submit,
        bindings::rust_do_trace_vhmm_job_submit,
        device.as_device_raw(),
        context,
        cookie,
        start(kind),
        length(kind),
        start(result),
        length(result),
    );
}

/// A job's end, as the device reports it.
#[derive(Clone, Copy)]
pub(crate) struct JobEndEvent {
    /// The number of the context.
    pub(crate) context: u32,
    /// The number that the device knows the job by.
    pub(crate) cookie: u64,
    /// How it ended.
    pub(crate) status: &'static str,
    /// The first virtual address that could not be accessed, bytes, or 0.
    pub(crate) address: u64,
    /// What was done, in the units of the kind.
    pub(crate) amount: u64,
    /// Its device faults.
    pub(crate) faults: u32,
    /// How long it took, as the device says, ns.
    pub(crate) device_ns: u64,
}

/// The device reports the end of a job. Any context.
pub(crate) fn job_end(device: &virtio::Device, end: &JobEndEvent) {
    emit!(
        bindings::__tracepoint_vhmm_job_end,
        bindings::rust_do_trace_vhmm_job_end,
        device.as_device_raw(),
        end.context,
        end.cookie,
        start(end.status),
        length(end.status),
        end.address,
        end.amount,
        end.faults,
        end.device_ns,
    );
}
