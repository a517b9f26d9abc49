// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The ioctls of `/dev/hmmN`, and a safe client for them.
//!
//! # Versioning
//! The ioctl number carries the size of the caller's structure. The driver accepts any size from
//! the first version's on: fields that an older caller does not have are zero, and what a newer
//! caller has beyond the driver's structure must be zero (else `E2BIG`). Unknown flags and
//! non-zero reserved fields are `EINVAL`. See `docs/uapi.md`.
#![cfg_attr(not(any(MODULE, feature = "client")), no_std)]
#![cfg_attr(not(feature = "client"), forbid(unsafe_code))]
#![deny(unsafe_code)]

#[cfg(all(feature = "client", not(MODULE)))]
pub mod client;
pub mod dmirror;
mod ioctl;
mod job;
mod policy;
mod skip;
mod trigger;

pub use ioctl::{
    Direction, Info, Migrate, MigrateFlags, PageState, Residency, Stats, INFO_NR, IOCTL_TYPE,
    MIGRATE_NR, RESIDENCY_NR, RESIDENCY_PAGES_MAX, STATS_NR, UAPI_VERSION,
};
pub use job::{
    Job, JobFlags, JobKind, JobState, JobStatus, JobWait, JobWaitFlags, JOBS_MAX, JOB_ARGUMENTS,
    JOB_NR, JOB_WAIT_NR,
};
pub use policy::{
    Advise, AdviseFlags, Evict, Limit, LimitFlags, PreferredSide, Prefetch, PrefetchState, Wait,
    WaitFlags, ADVISE_FIRST_BYTES, ADVISE_NR, EVICT_NR, LIMIT_NR, NEVER_TOUCHES, NO_LIMIT,
    PREFETCHES_MAX, PREFETCH_NR, WAIT_FOR_EVER, WAIT_NR,
};
pub use skip::{SkipReason, SKIP_REASONS};
pub use trigger::Trigger;
