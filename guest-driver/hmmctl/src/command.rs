// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The commands that ask or tell the device one thing.

pub(crate) mod info;
pub(crate) mod job;
pub(crate) mod migrate;
pub(crate) mod policy;
pub(crate) mod prefetch;
pub(crate) mod residency;
pub(crate) mod stats;
pub(crate) mod watch;

use crate::maps::{self, Mapping};
use anyhow::{Context, bail};
use hmm_uapi::client::Process;
use std::ops::Range;

/// The mappings of a process that lie in a range, cut to it; without a range, all of them.
fn mappings(process: Process, range: Option<&Range<u64>>) -> anyhow::Result<Vec<Mapping>> {
    let pid = match process {
        Process::Caller => std::process::id().cast_signed(),
        Process::Id(pid) => pid.get(),
    };
    let mut mappings =
        maps::of_process(pid).with_context(|| format!("cannot read the mappings of {process}"))?;
    if mappings.is_empty() {
        bail!("{process} has no memory: it is a kernel thread or has exited");
    }
    mappings.retain(Mapping::is_user_memory);
    if let Some(range) = range {
        for mapping in &mut mappings {
            mapping.range.start = mapping.range.start.max(range.start);
            mapping.range.end = mapping.range.end.min(range.end);
        }
        mappings.retain(|mapping| !mapping.range.is_empty());
    }
    Ok(mappings)
}
