// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The DMA engine: executes batches and control requests against device memory and a guest's memory.
//!
//! It is given the bytes of a request in private memory and a table of the guest's memory, and hands back what to
//! answer. Nothing is read twice from memory that the guest can write.
//!
//! Lock order: the caller's gate, then `session`, then the locks of `contexts`.

mod batch;
mod contents;
mod control;
mod copy;
mod map;
mod session;
mod submit;
mod transfer;
mod wait;
mod workspace;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use hmm_gate::ShardedLock;
use hmm_protocol::{
    BatchHeader, CONTROL_BYTES, Completion, Config, Features, HEADER_BYTES, JobLimits, Limits,
    MAGIC, NO_ERROR_INDEX, Op, Status, VERSION_MAJOR, VERSION_MINOR,
};
use zerocopy::{
    FromBytes,
    byteorder::little_endian::{U16, U32, U64},
};

use self::session::Session;
pub use self::{
    control::{ControlAnswer, Interrupted},
    copy::{CopyChoice, CopyRoutine, CopyRoutines, Measured, Pattern, UnknownRoutine},
    workspace::{OpCount, Workspace},
};
use crate::{
    guest_memory::GuestMemory,
    inject::{Delivery, Faults},
    jobs::{Bounds, Jobs},
    layout::{QueueLayout, Role},
    memory::DeviceMemory,
    mmu::{AccessBits, Budget, Contexts, Memories},
    model::{Link, LinkSpec},
};

/// Most entries of a batch on a bulk queue.
pub const MAX_BATCH_ENTRIES: u32 = 4096;
/// Most entries of a batch on the urgent queue: one 2 MiB folio in 4 KiB pages.
pub const MAX_URGENT_ENTRIES: u32 = 512;
/// Most bytes of one entry.
pub const MAX_ENTRY_BYTES: u32 = 2 << 20;
/// Most bytes of one batch.
pub const MAX_BATCH_BYTES: u64 = 64 << 20;
/// The longest request that can be right: a header and the most entries.
pub const MAX_REQUEST_BYTES: usize =
    HEADER_BYTES + MAX_BATCH_ENTRIES as usize * hmm_protocol::ENTRY_BYTES;
const _: () = assert!(MAX_REQUEST_BYTES > CONTROL_BYTES);
const PREFERRED_ALIGNMENT: u32 = 2 << 20;

/// Most entries of a batch on the MMU queue.
pub const MAX_MAP_ENTRIES: u32 = 1024;

/// How much of everything the device has.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Number of bulk queues, 1 to 16.
    pub bulk_queues: u32,
    /// What bounds contexts and jobs. Without job queues there are neither.
    pub jobs: JobLimits,
    /// Most memory for page tables, bytes.
    pub table_bytes: u64,
}

impl Shape {
    /// Which queue carries what.
    pub fn layout(&self) -> QueueLayout {
        QueueLayout::new(self.bulk_queues as u16, self.jobs.job_queues as u16)
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            bulk_queues: 1,
            jobs: JobLimits {
                job_queues: 2,
                max_contexts: 4096,
                max_jobs: 1024,
                max_map_entries: MAX_MAP_ENTRIES,
                max_harts: 64,
                fault_timeout_ms: 30_000,
            },
            table_bytes: 256 << 20,
        }
    }
}

/// What the engine asks of its caller while it works.
pub trait Pace {
    /// Called about every 64 KiB. It may wait for a moment to let more urgent work go first.
    fn between_slices(&self);
    /// Whether another thread waits for this worker to leave the gate, so that deliberate waits must end.
    fn is_wanted(&self) -> bool;
}

/// Where a batch comes from and what it may touch.
pub struct Job<'a> {
    /// What its queue is for.
    pub role: Role,
    /// The guest's memory.
    pub guest: &'a GuestMemory,
    /// The caller's pace.
    pub pace: &'a dyn Pace,
    /// Whether the chain has room for a status array of this many bytes.
    pub status_room: usize,
}

/// What to answer to a batch.
#[derive(Debug)]
pub struct Report {
    /// The record.
    pub completion: Completion,
    /// Whether the workspace's status array follows the record.
    pub with_statuses: bool,
    /// The batch's status.
    pub status: Status,
    /// What faults want of the delivery.
    pub delivery: Delivery,
    /// The time that the batch really took, without what faults and a modelled link add.
    pub measured: Duration,
}

impl Report {
    /// A batch that failed as a whole.
    pub fn refusal(status: Status, cookie: u64) -> Self {
        Self {
            completion: Completion {
                status: status.to_wire(),
                flags: 0,
                reserved: U16::new(0),
                entries_ok: U32::new(0),
                bytes_done: U64::new(0),
                first_error: U32::new(NO_ERROR_INDEX),
                device_ns: U32::new(0),
                cookie: U64::new(cookie),
            },
            with_statuses: false,
            status,
            delivery: Delivery::default(),
            measured: Duration::ZERO,
        }
    }
}

/// Device memory, its session and how it is copied.
#[derive(Debug)]
pub struct Engine {
    memory: DeviceMemory,
    /// Every batch reads it.
    session: ShardedLock<Session>,
    /// Whether a driver may have left something in the memory.
    is_used: AtomicBool,
    /// What the driver negotiated; [`Features`] as a number.
    features: AtomicU64,
    limits: Limits,
    shape: Shape,
    faults: Faults,
    copies: CopyRoutines,
    link: Option<Link>,
    contexts: Contexts,
    jobs: Jobs,
    accessed: AccessBits,
}

impl Engine {
    /// An engine of this `shape` over `memory`, perhaps behind a modelled link. No session is open, and no feature is
    /// negotiated.
    pub fn new(
        memory: DeviceMemory,
        shape: Shape,
        faults: Faults,
        copies: CopyRoutines,
        link: Option<LinkSpec>,
    ) -> Self {
        Self {
            link: link.map(Link::new),
            limits: Limits {
                memory_bytes: memory.bytes(),
                max_batch_entries: MAX_BATCH_ENTRIES,
                max_urgent_entries: MAX_URGENT_ENTRIES,
                max_entry_bytes: MAX_ENTRY_BYTES,
                max_batch_bytes: MAX_BATCH_BYTES,
                bulk_queues: shape.bulk_queues,
            },
            contexts: Contexts::new(shape.jobs.max_contexts, Budget::new(shape.table_bytes)),
            jobs: Jobs::new(Bounds {
                max_jobs: shape.jobs.max_jobs,
                fault_timeout: Duration::from_millis(shape.jobs.fault_timeout_ms.into()),
            }),
            accessed: AccessBits::new(memory.bytes()),
            shape,
            memory,
            session: ShardedLock::new(Session::Closed),
            is_used: AtomicBool::new(false),
            features: AtomicU64::new(0),
            faults,
            copies,
        }
    }

    /// The device's memory.
    pub fn memory(&self) -> &DeviceMemory {
        &self.memory
    }

    /// The faults that it obeys.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The features of this device.
    pub fn offered(&self) -> Features {
        let jobs = Features::CONTEXTS.union(Features::ACCESS_BITS);
        let limits = &self.shape.jobs;
        let all = match (limits.job_queues, limits.max_harts) {
            (0, _) => Features::ALL,
            (_, 0) => Features::ALL.union(jobs),
            _ => Features::ALL.union(jobs).union(Features::PROGRAMS),
        };
        match self.faults.are_allowed() {
            true => all,
            false => all.without(Features::FAULT_INJECTION),
        }
    }

    /// A driver negotiated `features`: nothing works for it but these.
    pub fn negotiate(&self, features: Features) {
        self.features.store(features.0, Ordering::Relaxed);
        (self.faults).obey(features.contains(Features::FAULT_INJECTION));
    }

    /// What the driver negotiated.
    pub(crate) fn features(&self) -> Features {
        Features(self.features.load(Ordering::Relaxed))
    }

    /// What bounds a batch.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Which queue carries what.
    pub fn layout(&self) -> QueueLayout {
        self.shape.layout()
    }

    /// What bounds contexts and jobs.
    pub fn job_limits(&self) -> &JobLimits {
        &self.shape.jobs
    }

    /// The contexts of the session.
    pub fn contexts(&self) -> &Contexts {
        &self.contexts
    }

    /// The jobs of the session.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// What jobs access, for a caller that is in the gate of `guest`.
    pub fn memories<'a>(&'a self, guest: &'a GuestMemory) -> Memories<'a> {
        Memories {
            guest,
            device: &self.memory,
            accessed: &self.accessed,
            faults: &self.faults,
        }
    }

    /// The modelled link, if there is one.
    pub fn link(&self) -> Option<&LinkSpec> {
        self.link.as_ref().map(Link::spec)
    }

    /// How it copies.
    pub fn copies(&self) -> &CopyRoutines {
        &self.copies
    }

    /// The configuration space, as faults leave it.
    pub fn config(&self) -> Config {
        let identity = self.memory.identity();
        // Without job queues all of them are 0.
        let jobs = match self.shape.jobs.job_queues {
            0 => None,
            _ => Some(&self.shape.jobs),
        };
        let of_jobs = |field: fn(&JobLimits) -> u32| U32::new(jobs.map_or(0, field));
        let mut config = Config {
            magic: U32::new(MAGIC),
            version_major: U16::new(VERSION_MAJOR),
            version_minor: U16::new(VERSION_MINOR),
            memory_bytes: U64::new(self.limits.memory_bytes),
            page_bytes: U32::new(4096),
            max_batch_entries: U32::new(self.limits.max_batch_entries),
            max_entry_bytes: U32::new(self.limits.max_entry_bytes),
            max_urgent_entries: U32::new(self.limits.max_urgent_entries),
            capabilities: U64::new(0),
            generation: U64::new(identity.generation),
            uuid: identity.uuid.into_bytes(),
            bulk_queues: U32::new(self.limits.bulk_queues),
            preferred_alignment: U32::new(PREFERRED_ALIGNMENT),
            max_batch_bytes: U64::new(self.limits.max_batch_bytes),
            health: U32::new(0),
            job_queues: of_jobs(|jobs| jobs.job_queues),
            max_contexts: of_jobs(|jobs| jobs.max_contexts),
            max_jobs: of_jobs(|jobs| jobs.max_jobs),
            max_map_entries: of_jobs(|jobs| jobs.max_map_entries),
            max_harts: of_jobs(|jobs| jobs.max_harts),
            fault_timeout_ms: of_jobs(|jobs| jobs.fault_timeout_ms),
            reserved: [U32::new(0); 5],
        };
        self.faults.distort(&mut config);
        config
    }

    /// The operation that a request asks for first.
    pub fn first_op(request: &[u8]) -> Option<Op> {
        let after_header = request.get(HEADER_BYTES)?;
        Op::from_wire(*after_header)
    }

    /// The cookie of a request, or 0 if it is too short for a header.
    pub fn cookie_of(request: &[u8]) -> u64 {
        BatchHeader::read_from_prefix(request).map_or(0, |(header, _)| header.cookie.get())
    }
}
