// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One transfer: the only place that touches the bytes of pages.

use hmm_protocol::{EntryFlags, Op, Status};

use super::{Engine, Job, copy::Pattern, wait::wait};
use crate::guest_memory::Hint;

/// How much is copied between two looks at what else is to be done.
const SLICE_BYTES: u64 = 64 << 10;

/// Shorter transfers are over before anything could be fetched for them.
const WORTH_FETCHING: u64 = 512;

/// What is moved: one entry, or several that lie side by side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) op: Op,
    pub(super) flags: EntryFlags,
    /// As in `CopyEntry`.
    pub(super) address: u64,
    pub(super) device_address: u64,
    pub(super) len: u64,
}

impl Transfer {
    /// An entry that asks for nothing.
    pub(super) fn nothing() -> Self {
        Self {
            op: Op::Nop,
            flags: EntryFlags::default(),
            address: 0,
            device_address: 0,
            len: 0,
        }
    }

    /// How its bytes lie.
    #[inline]
    fn pattern(&self) -> Pattern {
        Pattern::of(self.op, self.len)
    }

    /// Appends `next` if it continues this transfer on both sides.
    #[inline]
    pub(super) fn append(&mut self, next: &Self) -> bool {
        let continues = self.op == next.op
            && self.flags == next.flags
            && self.device_address + self.len == next.device_address
            && match self.op {
                Op::ToDevice | Op::ToSystem => self.address + self.len == next.address,
                Op::Fill => self.address == next.address,
                // Two copies within the device that do not overlap may do so as one.
                Op::Copy | Op::Nop => false,
            };
        if continues {
            self.len += next.len;
        }
        continues
    }
}

/// Executes the transfers of one batch.
pub(super) struct Transferrer<'a> {
    engine: &'a Engine,
    job: &'a Job<'a>,
    /// Whether the batch is too large for the caches.
    large: bool,
    hint: Hint,
    faulty: bool,
    since_pause: u64,
}

impl<'a> Transferrer<'a> {
    pub(super) fn new(engine: &'a Engine, job: &'a Job<'a>, large: bool) -> Self {
        Self {
            engine,
            job,
            large,
            hint: Hint::default(),
            faulty: engine.faults.any(),
            since_pause: 0,
        }
    }

    /// Executes `transfer`, whose device ranges have been validated; the guest range is checked here. On an error
    /// nothing is written.
    #[inline]
    pub(super) fn transfer(&mut self, transfer: &Transfer) -> Result<(), Status> {
        if !self.faulty {
            return self.execute(transfer);
        }
        self.execute_with_faults(transfer)
    }

    /// Announces what is transferred after the next call of `transfer`.
    #[inline]
    pub(super) fn announce(&mut self, next: &Transfer) {
        if next.len < WORTH_FETCHING || !matches!(next.op, Op::ToDevice | Op::ToSystem) {
            return;
        }
        let guest = self
            .job
            .guest
            .contiguous(next.address, next.len, &mut self.hint);
        let device = self.engine.memory.at(next.device_address, next.len);
        let (Some(guest), Some(device)) = (guest, device) else {
            return;
        };
        let (to, from) = match next.op {
            Op::ToDevice => (device, guest),
            _ => (guest, device),
        };
        // SAFETY: both are starts of `next.len` mapped, writable bytes.
        unsafe {
            self.engine.copies.prefetch(
                next.pattern(),
                self.is_large(next),
                to,
                from,
                next.len as usize,
            );
        }
    }

    /// Whether `transfer` is copied as a part of a large batch.
    #[inline]
    fn is_large(&self, transfer: &Transfer) -> bool {
        self.large || transfer.flags.contains(EntryFlags::NON_TEMPORAL)
    }

    #[cold]
    fn execute_with_faults(&mut self, transfer: &Transfer) -> Result<(), Status> {
        if transfer.op == Op::Nop {
            return Ok(());
        }
        let wanted = self.engine.faults.entry(self.job.role, transfer.op.name());
        if !wanted.delay.is_zero() {
            wait(wanted.delay, self.job);
        }
        if let Some(status) = wanted.fail {
            return Err(status);
        }
        let source = match transfer.op {
            Op::ToSystem => Some(transfer.device_address),
            Op::Copy => Some(transfer.address),
            Op::ToDevice | Op::Fill | Op::Nop => None,
        };
        if source.is_some_and(|start| self.engine.faults.is_poisoned(start, transfer.len)) {
            return Err(Status::Poison);
        }
        self.execute(transfer)?;
        if let Some(offset) = wanted.corrupt {
            self.corrupt(transfer, offset % transfer.len)?;
        }
        Ok(())
    }

    /// Inverts a bit of the destination's byte at `offset`.
    fn corrupt(&mut self, transfer: &Transfer, offset: u64) -> Result<(), Status> {
        let byte = match transfer.op {
            Op::ToSystem => self
                .job
                .guest
                .contiguous(transfer.address + offset, 1, &mut self.hint)
                .ok_or(Status::BadGuestAddress)?,
            _ => self.device(transfer.device_address + offset, 1)?,
        };
        // SAFETY: `byte` is one mapped, writable byte of shared memory to which there is no reference.
        unsafe { byte.write_volatile(byte.read_volatile() ^ 1) };
        Ok(())
    }

    #[inline]
    fn execute(&mut self, transfer: &Transfer) -> Result<(), Status> {
        let how = (transfer.pattern(), self.is_large(transfer));
        let len = transfer.len;
        match transfer.op {
            Op::Nop => {}
            Op::ToDevice => {
                let device = self.device(transfer.device_address, len)?;
                self.with_guest(transfer.address, len, |this, host, done, piece| {
                    // SAFETY: `with_guest` adds its pieces up to `len`, so `done` is within the device range.
                    let device = unsafe { device.add(done) };
                    this.copy(how, device, host, piece);
                })?;
            }
            Op::ToSystem => {
                let device = self.device(transfer.device_address, len)?;
                self.with_guest(transfer.address, len, |this, host, done, piece| {
                    // SAFETY: `with_guest` adds its pieces up to `len`, so `done` is within the device range.
                    let device = unsafe { device.add(done) };
                    this.copy(how, host, device, piece);
                })?;
                if transfer.flags.contains(EntryFlags::SCRUB) {
                    self.fill(device, len, 0);
                }
            }
            Op::Copy => {
                let destination = self.device(transfer.device_address, len)?;
                let source = self.device(transfer.address, len)?;
                self.copy(how, destination, source, len as usize);
            }
            Op::Fill => {
                let device = self.device(transfer.device_address, len)?;
                self.fill(device, len, transfer.address);
            }
        }
        Ok(())
    }

    /// Calls `each` with the mapped pieces of a guest range: where, how far into the range, how long.
    #[inline]
    fn with_guest(
        &mut self,
        address: u64,
        len: u64,
        mut each: impl FnMut(&mut Self, *mut u8, usize, usize),
    ) -> Result<(), Status> {
        let guest = self.job.guest;
        if let Some(host) = guest.contiguous(address, len, &mut self.hint) {
            each(self, host, 0, len as usize);
            return Ok(());
        }
        let mut done = 0;
        guest
            .pieces(address, len, |host, piece| {
                each(self, host, done, piece);
                done += piece;
            })
            .map_err(|_| Status::BadGuestAddress)
    }

    #[inline]
    fn device(&self, start: u64, len: u64) -> Result<*mut u8, Status> {
        self.engine
            .memory
            .at(start, len)
            .ok_or(Status::BadDeviceRange)
    }

    #[inline]
    fn copy(
        &mut self,
        how: (Pattern, bool),
        mut to: *mut u8,
        mut from: *const u8,
        mut left: usize,
    ) {
        while left > 0 {
            let here = left.min(self.left_in_slice());
            // SAFETY: the caller's ranges are mapped for `left` bytes each and `here` is no more. They do not overlap:
            // guest and device memory are different mappings, and copies within the device were validated.
            unsafe { self.engine.copies.copy(how.0, how.1, to, from, here) };
            // SAFETY: as above; the results are within or at the end of the ranges.
            (to, from) = unsafe { (to.add(here), from.add(here)) };
            left -= here;
            self.advance(here);
        }
    }

    fn fill(&mut self, mut to: *mut u8, len: u64, pattern: u64) {
        let mut left = len as usize;
        while left > 0 {
            let here = left.min(self.left_in_slice());
            // SAFETY: the caller's range is mapped for `left` bytes and `here` is no more; ranges, lengths and slices
            // are multiples of 8 from a base that is aligned to 2 MiB.
            unsafe { self.engine.copies.fill(to, here, pattern) };
            // SAFETY: as above; the result is within or at the end of the range.
            to = unsafe { to.add(here) };
            left -= here;
            self.advance(here);
        }
    }

    #[inline]
    fn left_in_slice(&self) -> usize {
        (SLICE_BYTES - self.since_pause) as usize
    }

    #[inline]
    fn advance(&mut self, bytes: usize) {
        self.since_pause += bytes as u64;
        if self.since_pause >= SLICE_BYTES {
            self.since_pause = 0;
            self.job.pace.between_slices();
        }
    }
}

impl Drop for Transferrer<'_> {
    /// What went past the caches is visible to other processors before the completion that follows is.
    fn drop(&mut self) {
        self.engine.copies.flush();
    }
}
