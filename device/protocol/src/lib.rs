// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The wire format between the virtio-hmm driver and its device.
//!
//! All integers are little-endian. Reserved fields are zero on the wire and a non-zero one is an error; so is a flag
//! that this version does not define. `docs/wire-format.md` is the prose of this crate, and the golden vectors in
//! [`mod@golden`] pin the bytes for both sides.
//!
//! The crate has no dependency but zerocopy: it is compiled by Cargo for the device and the tests, and by Kbuild into the driver.
#![cfg_attr(not(MODULE), no_std)]
#![forbid(unsafe_code)]

mod batch;
mod completion;
mod config;
mod control;
mod event;
mod feature;
pub mod golden;
mod job;
mod map;
mod queue;
mod report;
mod status;

pub use batch::{
    BatchFlags, BatchHeader, BatchKind, CopyEntry, EntryFlags, Op, PageList, ENTRY_BYTES,
    HEADER_BYTES, PAGE_ADDRESS_SKIP, PAGE_ADDRESS_ZERO, PAGE_LIST_BYTES,
};
pub use completion::{status_array_bytes, Completion, COMPLETION_BYTES, NO_ERROR_INDEX};
pub use config::{Config, JobLimits, Limits, CONFIG_BYTES, MAGIC, VERSION_MAJOR, VERSION_MINOR};
pub use control::{
    AccessFlags, ControlKind, ControlReply, ControlRequest, SessionFlags, SessionKey,
    SessionRequest, CONTROL_BYTES, SESSION_REQUEST_BYTES,
};
pub use event::{Event, EventKind, EVENT_BYTES};
pub use feature::Features;
pub use job::{Job, JobFlags, JobKind, JOB_BYTES, MAX_PROGRAM_MS, PROGRAM_RETURN};
pub use map::{
    MapEntry, MapFlags, MapHeader, MapOp, MAP_ENTRY_BYTES, MAP_HEADER_BYTES, MAP_KIND,
    MAX_MAP_BYTES, VIRTUAL_ADDRESS_END,
};
pub use queue::{
    job_queue_first, mmu_queue, queue_name, report_queue, BULK_QUEUE_FIRST, CONTROL_QUEUE,
    EVENT_QUEUE, MAX_BULK_QUEUES, MAX_JOB_QUEUES, URGENT_QUEUE, VIRTIO_ID,
};
pub use report::{FaultAccess, Report, ReportKind, REPORT_BYTES};
pub use status::Status;
