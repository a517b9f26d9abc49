// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The safe client: [`Device`] and what its calls take and give.

mod call;
mod device;
mod error;
mod job;
mod pagemap;
mod policy;
mod presence;
mod process;
mod residency;
mod skipped;

pub use device::{Device, MigrateReport, MigrateRequest};
pub use error::Error;
pub use job::{JobId, JobReport, JobRequest, ProgramRequest};
pub use pagemap::{PageRun, Pagemap, Place};
pub use policy::{Advice, EvictReport, LimitReport, PrefetchId, PrefetchReport, PrefetchRequest};
pub use presence::Presence;
pub use process::Process;
pub use residency::{ResidencyCounts, ResidencyMap};
pub use skipped::Skipped;
