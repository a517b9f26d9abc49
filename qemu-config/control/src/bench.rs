// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The benchmark's conversation: one [`Request`] a line to its program in the guest, one [`Answer`] a line back.
//!
//! The host decides what is measured when, so that what is compared alternates; the guest measures and says what it
//! saw. A request is answered before the next one is read.

use serde::{Deserialize, Serialize};

/// The first argument that makes the guest's init the benchmark's program.
pub const ARGUMENT: &str = "--bench";
/// Where the kernel's own test driver is in the guest's image.
pub const TEST_HMM: &str = "/hmm/test_hmm.ko";

/// One line from the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Loads `virtio_hmm` anew, with these module parameters beside the plan's; answered by [`Answer::Done`].
    LoadDriver {
        /// As `insmod` takes them.
        parameters: String,
    },
    /// Records the driver's events until the program ends ([`crate::recording`]); answered by [`Answer::Done`].
    Record,
    /// Loads `test_hmm`; answered by [`Answer::Done`].
    LoadTestHmm,
    /// Measures once; answered by [`Answer::Sample`].
    Measure(Measure),
    /// Measures once what the device does with memory; answered by [`Answer::Jobs`].
    Jobs,
}

/// The driver that moves the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// `virtio_hmm`, with the device that copies.
    Driver,
    /// `virtio_hmm`, with the device whose copies do nothing: memory that was on it has lost its contents.
    NoCopy,
    /// The kernel's `test_hmm`.
    TestHmm,
}

/// What the memory consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pages {
    /// Huge pages of 2 MiB.
    Thp,
    /// Pages of 4 KiB.
    Single,
}

/// What is done with the memory once it is on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Return {
    /// It is moved back by one call.
    Migrate,
    /// A CPU reads it from end to end.
    Read,
    /// A CPU reads this many pages somewhere in it, one after the other; then it is moved back.
    Touch {
        /// How many pages that are still on the device.
        count: usize,
    },
}

/// One measurement: memory is written, moved to the device, brought back, and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// The driver that moves it.
    pub side: Side,
    /// What it consists of.
    pub pages: Pages,
    /// How much.
    pub bytes: u64,
    /// How it comes back.
    pub back: Return,
}

/// One line to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done,
    /// What was measured.
    Sample(Sample),
    /// What was measured of jobs.
    Jobs(Box<JobSample>),
    /// It could not be done, or a byte was wrong.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What a measurement saw. Times are nanoseconds of the guest's monotonic clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Time of the call that moved the memory to the device.
    pub to_device_ns: u64,
    /// Of that, what `test_hmm` took to copy the contents to the caller, as its READ call says.
    pub read_back_ns: u64,
    /// Time of the call that moved it back, or of the CPU that read it.
    pub back_ns: u64,
    /// Pages that came back one by one: how long the CPU waited for each.
    pub touches_ns: Vec<u64>,
    /// Doorbells that the driver rang on the way to the device, and back.
    pub doorbells: [u64; 2],
    /// CPU faults that the driver served.
    pub cpu_faults: u64,
}

/// Stages of a device fault that moves memory, as debugfs names them. The last has all of them, and what is between.
pub const FAULT_STAGES: [&str; 7] = [
    "setup",
    "destinations",
    "submit",
    "wait",
    "pages",
    "finalize",
    "device_fault",
];
/// Bytes that are prefetched in all.
pub const PREFETCHED: u64 = 64 << 20;
/// Bytes of each prefetch: so many are begun one after the other that all is prefetched.
pub const PREFETCHES: [u64; 3] = [2 << 20, 8 << 20, 64 << 20];

/// Memory that moves to the device by prefetches, and a job that wants its first page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefetchSample {
    /// From the begin of the first prefetch to the end of the job, nanoseconds.
    pub first_touch_ns: u64,
    /// From the begin of the first prefetch to the end of all, nanoseconds.
    pub total_ns: u64,
}

/// What a measurement of jobs saw. Times are nanoseconds; those of jobs are what the device measured from acceptance to the
/// end, all others of the guest's monotonic clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSample {
    /// Jobs that read 8 bytes of a page of system memory, which was faulted in and mapped.
    pub fault_ns: Vec<u64>,
    /// The same jobs again, without a page fault.
    pub resident_ns: Vec<u64>,
    /// Jobs that read 8 bytes of a huge page, which moved to the device at that.
    pub huge_fault_ns: Vec<u64>,
    /// The same with the device whose copies do nothing.
    pub huge_fault_no_copy_ns: Vec<u64>,
    /// What the driver took for each of those that copy, on average, by stage ([`FAULT_STAGES`]).
    pub huge_fault_stages_ns: [u64; FAULT_STAGES.len()],
    /// Steps of a loop that a program took, and their time on the device and on the guest's CPU.
    pub program_steps: u64,
    /// See [`JobSample::program_steps`].
    pub program_ns: [u64; 2],
    /// The same memory moved to the device by prefetches of each of [`PREFETCHES`].
    pub prefetches: [PrefetchSample; PREFETCHES.len()],
    /// A job that copied as much to device memory.
    pub engine_ns: u64,
    /// `mprotect()` of a page that the device has mapped, and of one that it has not.
    pub protect_ns: [Vec<u64>; 2],
    /// Bytes that were unmapped.
    pub unmapped_bytes: u64,
    /// `munmap()` of so much that the device has mapped, and of as much in a process without a context.
    pub unmap_ns: [u64; 2],
    /// Nodes of the list.
    pub nodes: u64,
    /// Walk of the list by the device, and by the guest's CPU.
    pub walk_ns: [u64; 2],
}
