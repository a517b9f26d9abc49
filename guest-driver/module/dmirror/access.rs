// SPDX-License-Identifier: GPL-2.0-only

//! READ, WRITE and what is like them: the device copies between the memory that a file mirrors and a window of
//! the driver, from or to which the CPU copies the caller's buffer.

use super::{
    command::{
        Argument,
        Outcome, //
    },
    mirror_file::MirrorFile, //
};
use crate::{
    contexts::JobEnd,
    space::{
        JobSpec,
        Space,
        Window, //
    },
    sys::services::signal::signal_waits, //
};
use core::ops::Range;
use hmm_protocol::{
    JobFlags,
    JobKind,
    MapFlags,
    Status, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    },
    uaccess::{
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

/// Bytes of the largest window, and of the least: the memory for it is contiguous.
const WINDOW: Range<usize> = PAGE_SIZE..1 << 20;
/// Bytes that the CPU copies at once, a multiple of a page.
const STEP: usize = 64 << 10;
/// How long a job may take that waits for no page, milliseconds, and after that how long its end.
const JOB_MS: u32 = 10_000;
/// How long to sleep before the next look for the end of a job that was cancelled.
const PAUSE: Delta = Delta::from_millis(1);
/// How often a job is tried that a reset of the device ended.
const TRIES: usize = 4;

/// What happens at an address without a translation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnMiss {
    /// The call ends with `ENOENT`.
    Fail,
    /// The rest of the range is faulted in.
    Fault,
    /// The same, but a fault may drop the mmap lock.
    FaultUnlocked,
}

/// Where the device copies to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Window,
    Mirrored,
}

impl MirrorFile {
    /// The device reads the range; what it read is in the caller's buffer then. If this fails, a part of it may be
    /// there.
    ///
    /// # Errors
    ///
    /// `ENOENT` with [`OnMiss::Fail`]; otherwise those of the fault, `EFAULT` and `EPERM` among them. `EFAULT` the
    /// buffer cannot be written, `ERESTARTSYS` a signal came, `EIO` the device does not work, `ENODEV`, `ENOMEM`.
    pub(super) fn read(&self, argument: &Argument, on_miss: OnMiss) -> Result<Outcome> {
        let mut buffer = argument.buffer(PAGE_SIZE)?.writer();
        let mut access = Access::new(self, argument.range(), To::Window, on_miss)?;
        while let Some(part) = access.next_part() {
            access.copy(part.clone())?;
            access.give(part.len(), &mut buffer)?;
        }
        Ok(access.outcome())
    }

    /// The device writes the caller's buffer to the range. If this fails, a part of it may be there.
    ///
    /// # Errors
    ///
    /// As [`MirrorFile::read`].
    pub(super) fn write(&self, argument: &Argument) -> Result<Outcome> {
        let mut buffer = argument.buffer(PAGE_SIZE)?.reader();
        let range = argument.range();
        let mut access = Access::new(self, range, To::Mirrored, OnMiss::Fault)?;
        while let Some(part) = access.next_part() {
            access.take(part.len(), &mut buffer)?;
            access.copy(part)?;
        }
        Ok(access.outcome())
    }

    /// Takes the pages of the range from the CPUs, and then reads them without a fault.
    ///
    /// # Errors
    ///
    /// Those of `make_device_exclusive()`; as [`MirrorFile::read`].
    pub(super) fn exclusive(&self, argument: &Argument) -> Result<Outcome> {
        self.check_addresses(&argument.range())?;
        let taken = self.space.make_exclusive(argument.range());
        taken.map_err(|error| match error {
            // The pages change all the time.
            EAGAIN => EBUSY,
            other => other,
        })?;
        self.read(argument, OnMiss::Fail)
    }

    /// Asks the device whether it has a page of the range exclusively.
    ///
    /// # Errors
    ///
    /// `EPERM` it has, `EFAULT` the process cannot map such addresses; as [`MirrorFile::read`] if the device cannot
    /// be asked.
    pub(super) fn check_exclusive(&self, range: Range<usize>) -> Result<Outcome> {
        self.check_addresses(&range)?;
        let count = |flags: MapFlags| {
            let (start, bytes) = (range.start as u64, range.len() as u64);
            let end = run(
                &self.space,
                JobKind::Probe,
                JobFlags::default(),
                [start, bytes, u64::from(flags.0)],
            )?;
            match end.status {
                Status::Ok => Ok(end.result),
                _ => Err(EIO),
            }
        };
        // A page in its own memory may be used atomically without being exclusive.
        let own = count(MapFlags(MapFlags::ATOMIC.0 | MapFlags::DEVICE.0))?;
        if count(MapFlags::ATOMIC)? > own {
            return Err(EPERM);
        }
        Ok(Outcome::default())
    }
}

/// An access of the device to a range, part by part.
struct Access<'a> {
    space: &'a Space,
    window: Window,
    window_bytes: usize,
    step: KVVec<u8>,
    range: Range<usize>,
    /// Where the next part begins.
    next: usize,
    to: To,
    on_miss: OnMiss,
    faults: u64,
}

impl<'a> Access<'a> {
    fn new(mirror: &'a MirrorFile, range: Range<usize>, to: To, on_miss: OnMiss) -> Result<Self> {
        mirror.check_addresses(&range)?;
        let space = &mirror.space;
        let most = range
            .len()
            .checked_next_power_of_two()
            .map_or(WINDOW.end, |bytes| bytes.min(WINDOW.end));
        let mut window_bytes = most;
        let window = loop {
            match space.window(window_bytes) {
                Err(error) if error == ENOMEM && window_bytes > WINDOW.start => window_bytes /= 2,
                window => break window?,
            }
        };
        Ok(Self {
            space,
            window,
            window_bytes,
            step: KVVec::from_elem(0u8, window_bytes.min(STEP), GFP_KERNEL)?,
            next: range.start,
            range,
            to,
            on_miss,
            faults: 0,
        })
    }

    /// The next part, which fits into the window.
    fn next_part(&mut self) -> Option<Range<usize>> {
        let start = self.next;
        self.next = start.saturating_add(self.window_bytes).min(self.range.end);
        (start < self.next).then_some(start..self.next)
    }

    /// Has the device copy a part to or from the window.
    fn copy(&mut self, part: Range<usize>) -> Result {
        let (mut at, mut tries) = (part.start, TRIES);
        loop {
            if signal_waits() {
                return Err(ERESTARTSYS);
            }
            let mirrored = at as u64;
            let window = self.window.address() + (at - part.start) as u64;
            let bytes = (part.end - at) as u64;
            let end = run(
                self.space,
                JobKind::Copy,
                JobFlags::NO_FAULT,
                match self.to {
                    To::Window => [window, mirrored, bytes],
                    To::Mirrored => [mirrored, window, bytes],
                },
            )?;
            match end.status {
                Status::Ok => return Ok(()),
                Status::Unmapped | Status::Forbidden => {
                    let miss = usize::try_from(end.address)? & !(PAGE_SIZE - 1);
                    if !(at..part.end).contains(&miss) {
                        return Err(EIO);
                    }
                    at = miss;
                    self.serve(miss)?;
                }
                Status::Cancelled if tries > 0 => tries -= 1,
                _ => return Err(EIO),
            }
        }
    }

    /// Serves a fault of the device at `address`: of all of the range from there on.
    fn serve(&mut self, address: usize) -> Result {
        if self.on_miss == OnMiss::Fail {
            return Err(ENOENT);
        }
        let (write, unlocked) = (
            self.to == To::Mirrored,
            self.on_miss == OnMiss::FaultUnlocked,
        );
        self.space
            .fault_in(address..self.range.end, write, unlocked)
            .map_err(|error| match error {
                // The process has ended.
                ESRCH => EFAULT,
                other => other,
            })?;
        self.faults += 1;
        Ok(())
    }

    /// Gives the first `bytes` of the window, a number of pages, to the caller.
    fn give(&mut self, bytes: usize, buffer: &mut UserSliceWriter) -> Result {
        for offset in (0..bytes).step_by(STEP) {
            let step = self
                .step
                .get_mut(..STEP.min(bytes - offset))
                .ok_or(EINVAL)?;
            self.window.read(offset, step)?;
            buffer.write_slice(step)?;
        }
        Ok(())
    }

    /// Takes the first `bytes` of the window, a number of pages, from the caller.
    fn take(&mut self, bytes: usize, buffer: &mut UserSliceReader) -> Result {
        for offset in (0..bytes).step_by(STEP) {
            let step = self
                .step
                .get_mut(..STEP.min(bytes - offset))
                .ok_or(EINVAL)?;
            buffer.read_slice(step)?;
            self.window.write(offset, step)?;
        }
        Ok(())
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            pages: self.range.len() >> PAGE_SHIFT,
            faults: self.faults,
        }
    }
}

/// Runs a job that waits for no page, to its end.
fn run(space: &Space, kind: JobKind, flags: JobFlags, first: [u64; 3]) -> Result<JobEnd> {
    let mut arguments = [0; 12];
    for (argument, value) in arguments.iter_mut().zip(first) {
        *argument = value;
    }
    let spec = JobSpec {
        kind,
        flags,
        arguments,
    };
    let job = space.run(&spec, None)?;
    let error = match job.wait(JOB_MS) {
        Ok(Some(end)) => return Ok(end),
        Ok(None) => EIO,
        Err(_) => ERESTARTSYS,
    };
    // The call must not return while the job may still access memory. A device that does not end it is reset.
    space.cancel(&job);
    let began = Instant::<Monotonic>::now();
    while job.end().is_none() && began.elapsed() < Delta::from_millis(i64::from(JOB_MS)) {
        fsleep(PAUSE);
    }
    Err(error)
}
