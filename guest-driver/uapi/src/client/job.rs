// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! What the device does on the memory of a process.

use super::policy::milliseconds;
use super::{call, Device, Error, Process};
use crate::{
    Job, JobFlags, JobKind, JobState, JobStatus, JobWait, JobWaitFlags, JOB_ARGUMENTS,
    WAIT_FOR_EVER,
};
use core::ops::Range;
use core::time::Duration;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::io::Errno;
use std::num::NonZeroI32;

/// What the device is to do. Addresses are those of the process, bytes.
#[derive(Clone, Copy, Debug)]
pub struct JobRequest<'a> {
    kind: JobKind,
    flags: JobFlags,
    arguments: [u64; JOB_ARGUMENTS],
    notify: Option<BorrowedFd<'a>>,
}

/// A function of RV64IMAC code in the memory of a process, and what it is called with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramRequest {
    /// Address of the function.
    pub entry: u64,
    /// One past the last byte of the stacks, a multiple of 16.
    pub stack_top: u64,
    /// Bytes of stack of each hart, a multiple of 16.
    pub stack_bytes: u64,
    /// How many harts run the function.
    pub harts: u64,
    /// Most instructions of a hart; 0: as many as the device allows.
    pub instructions: u64,
    /// Most milliseconds; 0: as many as the device allows.
    pub milliseconds: u64,
    /// The function's first arguments; the sixth is the number of the hart.
    pub arguments: [u64; 5],
    /// The register `gp`.
    pub global_pointer: u64,
}

/// A job that was begun by an open device. It is cancelled when the device is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobId(u64);

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobReport {
    /// Its state. Once it is told not to be running, the id is gone.
    pub state: JobState,
    /// Why it did not end well.
    pub error: Option<Errno>,
    /// What the device said about its end, if it did and this version knows the word.
    pub status: Option<JobStatus>,
    /// The result, as [`JobKind`] says.
    pub result: u64,
    /// The first address that could not be accessed, or 0.
    pub address: u64,
    /// Where the hart was that ended a program badly, or 0.
    pub program_counter: u64,
    /// What was done: bytes, words, nodes, pages or instructions.
    pub amount: u64,
    /// Time from acceptance to the end, measured by the device.
    pub device_time: Duration,
    /// Page faults.
    pub faults: u64,
}

impl<'a> JobRequest<'a> {
    /// A job with its arguments as they are; those that are missing are zero.
    pub fn new<const N: usize>(kind: JobKind, arguments: [u64; N]) -> Self {
        const { assert!(N <= JOB_ARGUMENTS) };
        let mut all = [0; JOB_ARGUMENTS];
        all[..N].copy_from_slice(&arguments);
        Self {
            kind,
            flags: JobFlags::default(),
            arguments: all,
            notify: None,
        }
    }

    /// Fills a range with the 8 bytes of `pattern`, again and again.
    pub fn fill(range: Range<u64>, pattern: u64) -> Self {
        Self::new(JobKind::Fill, [range.start, length(&range), pattern])
    }

    /// Copies a range to `to`. The two must not overlap.
    pub fn copy(from: Range<u64>, to: u64) -> Self {
        Self::new(JobKind::Copy, [to, from.start, length(&from)])
    }

    /// The CRC-32C of a range, continued from `before` (0 begins).
    pub fn crc32c(range: Range<u64>, before: u32) -> Self {
        Self::new(
            JobKind::Crc32c,
            [range.start, length(&range), u64::from(before)],
        )
    }

    /// Adds atomically to each of `words` words of `width` bytes (4 or 8).
    pub fn atomic_add(first: u64, words: u64, width: u64, add: u64) -> Self {
        Self::new(JobKind::AtomicAdd, [first, words, add, width])
    }

    /// Follows a list of at most `most` nodes and sums up what is `value` bytes into each; the pointer to the next is
    /// `next` bytes into a node. With `add`, adds that to each.
    pub fn walk(head: u64, next: u64, value: u64, most: u64, add: Option<u64>) -> Self {
        let mut request = Self::new(
            JobKind::Walk,
            [head, next, most, value, add.unwrap_or_default()],
        );
        if add.is_some() {
            request.flags.0 |= JobFlags::WRITE.0;
        }
        request
    }

    /// Counts the pages of a range that the device has mapped with `permissions`: 1 read, 2 write, 4 atomic, 8 in device
    /// memory.
    pub fn probe(range: Range<u64>, permissions: u64) -> Self {
        Self::new(JobKind::Probe, [range.start, length(&range), permissions])
    }

    /// Runs a function.
    pub fn program(program: &ProgramRequest) -> Self {
        let [a0, a1, a2, a3, a4] = program.arguments;
        Self::new(
            JobKind::Program,
            [
                program.entry,
                program.stack_top,
                program.stack_bytes,
                program.harts,
                program.instructions,
                program.milliseconds,
                a0,
                a1,
                a2,
                a3,
                a4,
                program.global_pointer,
            ],
        )
    }

    /// The same job, which ends at the first page that the device has not mapped.
    pub fn without_faults(mut self) -> Self {
        self.flags.0 |= JobFlags::NO_FAULT.0;
        self
    }

    /// The same job, whose end adds 1 to an eventfd.
    pub fn notifying(mut self, eventfd: BorrowedFd<'a>) -> Self {
        self.flags.0 |= JobFlags::EVENTFD.0;
        self.notify = Some(eventfd);
        self
    }

    fn argument(&self, process: Process) -> Job {
        Job {
            flags: self.flags.0,
            kind: self.kind as u32,
            pid: process.raw(),
            eventfd: self.notify.map_or(0, |eventfd| eventfd.as_raw_fd()),
            arguments: self.arguments,
            ..Job::default()
        }
    }
}

impl Device {
    /// Begins a job on the memory of the calling process, and does not wait for it.
    ///
    /// # Safety
    /// Until the job has ended, what it reads and writes is as if the caller did so through raw pointers: no reference
    /// may contradict it, and what it writes must be valid for those that use the memory afterwards.
    #[allow(unsafe_code)]
    pub unsafe fn begin_job(&self, request: &JobRequest<'_>) -> Result<JobId, Error> {
        self.begin(request, Process::Caller)
    }

    /// Begins a job on the memory of another process, as a debugger writes to `/proc/PID/mem`. For the process that
    /// calls it is refused.
    pub fn begin_job_for(
        &self,
        process: NonZeroI32,
        request: &JobRequest<'_>,
    ) -> Result<JobId, Error> {
        let is_own_thread = std::path::Path::new("/proc/self/task")
            .join(process.to_string())
            .exists();
        if is_own_thread || process.get().unsigned_abs() == std::process::id() {
            return Err(Error::OwnMemory);
        }
        self.begin(request, Process::Id(process))
    }

    fn begin(&self, request: &JobRequest<'_>, process: Process) -> Result<JobId, Error> {
        let mut argument = request.argument(process);
        #[allow(unsafe_code)]
        // SAFETY: The job is for another process, or the caller of `begin_job` answers for it.
        let begun = unsafe { call::job(self.as_fd(), &mut argument) };
        begun.map_err(|errno| match errno {
            Errno::INVAL => Error::Refused { call: "JOB" },
            Errno::OPNOTSUPP => Error::Unsupported { call: "JOB" },
            errno => Error::of_process("JOB", errno, process),
        })?;
        Ok(JobId(argument.id))
    }

    /// What has become of a job.
    pub fn job_state(&self, id: JobId) -> Result<JobReport, Error> {
        self.wait_for_job(id, JobWaitFlags::default(), 0)
    }

    /// Waits for a job, at most for `limit`; without, to its end.
    pub fn wait_job(&self, id: JobId, limit: Option<Duration>) -> Result<JobReport, Error> {
        self.wait_for_job(id, JobWaitFlags::default(), milliseconds(limit))
    }

    /// Asks a job to stop, and waits until it has.
    pub fn cancel_job(&self, id: JobId) -> Result<JobReport, Error> {
        self.wait_for_job(id, JobWaitFlags::CANCEL, WAIT_FOR_EVER)
    }

    fn wait_for_job(
        &self,
        id: JobId,
        flags: JobWaitFlags,
        timeout_ms: u32,
    ) -> Result<JobReport, Error> {
        let mut argument = JobWait {
            flags: flags.0,
            timeout_ms,
            id: id.0,
            ..JobWait::default()
        };
        call::job_wait(self.as_fd(), &mut argument)
            .map_err(|errno| Error::of_device("JOB_WAIT", errno))?;
        Ok(JobReport {
            // A state that this version does not know is one of an end.
            state: JobState::from_raw(argument.state).unwrap_or(JobState::Failed),
            error: i32::try_from(argument.error)
                .ok()
                .filter(|&error| error != 0)
                .map(Errno::from_raw_os_error),
            status: JobStatus::from_raw(argument.status),
            result: argument.result,
            address: argument.address,
            program_counter: argument.program_counter,
            amount: argument.amount,
            device_time: Duration::from_nanos(argument.device_ns),
            faults: argument.faults,
        })
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

#[cfg(test)]
mod tests {
    use super::{JobRequest, ProgramRequest};
    use crate::{JobFlags, JobKind, JobStatus};
    use rustix::io::Errno;
    use std::os::fd::AsFd;

    #[test]
    fn arguments_are_where_the_kind_has_them() {
        let fill = JobRequest::fill(0x1000..0x3000, 7);
        assert_eq!(fill.kind, JobKind::Fill);
        assert_eq!(fill.arguments[..4], [0x1000, 0x2000, 7, 0]);
        let copy = JobRequest::copy(0x1000..0x3000, 0x8000);
        assert_eq!(copy.arguments[..4], [0x8000, 0x1000, 0x2000, 0]);
        let walk = JobRequest::walk(0x1000, 0, 8, 9, Some(3));
        assert_eq!(walk.arguments[..6], [0x1000, 0, 9, 8, 3, 0]);
        assert!(walk.flags.contains(JobFlags::WRITE));
        assert_eq!(JobRequest::walk(1, 0, 8, 9, None).flags.0, 0);
        let program = JobRequest::program(&ProgramRequest {
            entry: 1,
            stack_top: 2,
            stack_bytes: 3,
            harts: 4,
            instructions: 5,
            milliseconds: 6,
            arguments: [7, 8, 9, 10, 11],
            global_pointer: 12,
        });
        assert!(program.arguments.iter().copied().eq(1..=12));
    }

    #[test]
    fn a_range_that_is_turned_round_is_left_to_the_driver_to_refuse() {
        let (start, end) = (0x3000, 0x1000);
        assert_eq!(JobRequest::fill(start..end, 0).arguments[1], 0);
    }

    #[test]
    fn an_eventfd_counts_only_where_the_flag_says_so() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let job = JobRequest::fill(0..8, 0).argument(super::Process::Caller);
        assert_eq!((job.flags, job.eventfd), (0, 0));
        let job = JobRequest::fill(0..8, 0)
            .without_faults()
            .notifying(file.as_fd())
            .argument(super::Process::Caller);
        assert_eq!(
            job.flags,
            JobFlags::NO_FAULT.0 | JobFlags::EVENTFD.0,
            "{job:?}"
        );
        assert!(job.eventfd > 0);
    }

    #[test]
    fn error_numbers_are_those_of_this_kernel() {
        for (status, errno) in [
            (JobStatus::Poison, Errno::IO),
            (JobStatus::Internal, Errno::IO),
            (JobStatus::BadAddress, Errno::FAULT),
            (JobStatus::Unmapped, Errno::FAULT),
            (JobStatus::Forbidden, Errno::FAULT),
            (JobStatus::Misaligned, Errno::FAULT),
            (JobStatus::NoMemory, Errno::NOMEM),
            (JobStatus::FaultTimeout, Errno::TIMEDOUT),
            (JobStatus::Stalled, Errno::TIMEDOUT),
            (JobStatus::IllegalInstruction, Errno::NOEXEC),
            (JobStatus::Breakpoint, Errno::NOEXEC),
            (JobStatus::Limit, Errno::LOOP),
            (JobStatus::Cancelled, Errno::CANCELED),
        ] {
            assert_eq!(
                i32::try_from(status.errno()),
                Ok(errno.raw_os_error()),
                "{status:?}"
            );
        }
        let bad = JobStatus::ALL.iter().filter(|status| status.errno() == 0);
        assert!(bad.eq([&JobStatus::Ok]));
    }
}
