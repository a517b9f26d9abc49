// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The configuration space.

use crate::{Features, MAX_BULK_QUEUES, MAX_JOB_QUEUES};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `"HMMD"`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"HMMD");
/// A driver refuses another major version.
pub const VERSION_MAJOR: u16 = 1;
/// A minor version adds only what a feature bit announces.
pub const VERSION_MINOR: u16 = 1;
/// Size of [`Config`], bytes.
pub const CONFIG_BYTES: usize = 128;

/// The configuration space, read-only. Read it once when the driver starts; the event queue tells of changes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Config {
    /// [`MAGIC`].
    pub magic: U32,
    /// [`VERSION_MAJOR`].
    pub version_major: U16,
    /// [`VERSION_MINOR`].
    pub version_minor: U16,
    /// Device memory, bytes: a multiple of 2 MiB.
    pub memory_bytes: U64,
    /// Smallest page of the device, bytes: 4096.
    pub page_bytes: U32,
    /// Most entries of a batch on a bulk queue.
    pub max_batch_entries: U32,
    /// Most bytes of one entry.
    pub max_entry_bytes: U32,
    /// Most entries of a batch on the urgent queue.
    pub max_urgent_entries: U32,
    /// Reserved for operation capabilities; zero.
    pub capabilities: U64,
    /// Changes whenever the contents of device memory may be lost.
    pub generation: U64,
    /// Identity of the device memory.
    pub uuid: [u8; 16],
    /// Number of bulk queues, 1 to 16.
    pub bulk_queues: U32,
    /// Alignment that the device copies best, bytes.
    pub preferred_alignment: U32,
    /// Most bytes of one batch.
    pub max_batch_bytes: U64,
    /// 0: healthy. Other values are reserved.
    pub health: U32,
    /// Number of job queues, 1 to 16 with [`Features::CONTEXTS`]; 0 without.
    pub job_queues: U32,
    /// Contexts have the numbers 0 to `max_contexts` - 1.
    pub max_contexts: U32,
    /// Most jobs that were accepted and whose end was not reported yet.
    pub max_jobs: U32,
    /// Most entries of a batch on the MMU queue.
    pub max_map_entries: U32,
    /// Most harts of a program, 0 without [`Features::PROGRAMS`].
    pub max_harts: U32,
    /// Time after which the device ends a job whose page fault was not answered, milliseconds.
    pub fault_timeout_ms: U32,
    /// Zero.
    pub reserved: [U32; 5],
}

/// What a device publishes that bounds contexts and jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLimits {
    /// Number of job queues, 1 to 16.
    pub job_queues: u32,
    /// Contexts have the numbers 0 to `max_contexts` - 1.
    pub max_contexts: u32,
    /// Most jobs that were accepted and whose end was not reported yet.
    pub max_jobs: u32,
    /// Most entries of a batch on the MMU queue.
    pub max_map_entries: u32,
    /// Most harts of a program; 0: the device runs no programs.
    pub max_harts: u32,
    /// Time after which the device ends a job whose page fault was not answered, milliseconds.
    pub fault_timeout_ms: u32,
}

/// What a device publishes that bounds a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Device memory, bytes.
    pub memory_bytes: u64,
    /// Most entries of a batch on a bulk queue.
    pub max_batch_entries: u32,
    /// Most entries of a batch on the urgent queue.
    pub max_urgent_entries: u32,
    /// Most bytes of one entry.
    pub max_entry_bytes: u32,
    /// Most bytes of one batch.
    pub max_batch_bytes: u64,
    /// Number of bulk queues.
    pub bulk_queues: u32,
}

impl Config {
    /// Checks what a device published.
    ///
    /// # Errors
    /// A sentence that says which field is wrong.
    pub fn validate(&self) -> Result<Limits, &'static str> {
        if self.magic.get() != MAGIC {
            return Err("magic is not that of a virtio-hmm device");
        }
        if self.version_major.get() != VERSION_MAJOR {
            return Err("unknown major version");
        }
        if self.page_bytes.get() != 4096 {
            return Err("page size is not 4096 bytes");
        }
        let memory_bytes = self.memory_bytes.get();
        if memory_bytes == 0 || memory_bytes % (2 << 20) != 0 || memory_bytes > 1 << 46 {
            return Err("memory size is zero, beyond 64 TiB or not a multiple of 2 MiB");
        }
        if self.max_batch_entries.get() < 512 || self.max_batch_entries.get() > 1 << 16 {
            return Err("a batch must hold 512 to 65536 entries");
        }
        if self.max_urgent_entries.get() == 0
            || self.max_urgent_entries.get() > self.max_batch_entries.get()
        {
            return Err("an urgent batch must hold at least 1 entry and no more than a bulk batch");
        }
        if self.max_entry_bytes.get() < 2 << 20 {
            return Err("an entry must hold 2 MiB");
        }
        if self.max_batch_bytes.get() < 2 << 20 {
            return Err("a batch must hold 2 MiB");
        }
        if self.bulk_queues.get() == 0 || self.bulk_queues.get() > MAX_BULK_QUEUES {
            return Err("there must be 1 to 16 bulk queues");
        }
        if self.health.get() != 0 {
            return Err("the device reports that it is not healthy");
        }
        Ok(Limits {
            memory_bytes,
            max_batch_entries: self.max_batch_entries.get(),
            max_urgent_entries: self.max_urgent_entries.get(),
            max_entry_bytes: self.max_entry_bytes.get(),
            max_batch_bytes: self.max_batch_bytes.get(),
            bulk_queues: self.bulk_queues.get(),
        })
    }

    /// Checks what a device published about contexts and jobs, for a driver that negotiated `features`. `None` without
    /// [`Features::CONTEXTS`].
    ///
    /// # Errors
    /// A sentence that says which field is wrong.
    pub fn validate_jobs(&self, features: Features) -> Result<Option<JobLimits>, &'static str> {
        if !features.contains(Features::CONTEXTS) {
            return Ok(None);
        }
        let limits = JobLimits {
            job_queues: self.job_queues.get(),
            max_contexts: self.max_contexts.get(),
            max_jobs: self.max_jobs.get(),
            max_map_entries: self.max_map_entries.get(),
            max_harts: match features.contains(Features::PROGRAMS) {
                true => self.max_harts.get(),
                false => 0,
            },
            fault_timeout_ms: self.fault_timeout_ms.get(),
        };
        if limits.job_queues == 0 || limits.job_queues > MAX_JOB_QUEUES {
            return Err("there must be 1 to 16 job queues");
        }
        if limits.max_contexts == 0 || limits.max_contexts > 1 << 20 {
            return Err("there must be 1 to 1048576 contexts");
        }
        if limits.max_jobs == 0 || limits.max_jobs > 1 << 20 {
            return Err("there must be 1 to 1048576 jobs");
        }
        if limits.max_map_entries < 16 || limits.max_map_entries > 1 << 16 {
            return Err("a batch of mappings must hold 16 to 65536 entries");
        }
        if limits.fault_timeout_ms == 0 {
            return Err("a page fault must have time to be answered");
        }
        Ok(Some(limits))
    }
}
