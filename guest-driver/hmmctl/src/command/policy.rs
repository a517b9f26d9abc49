// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl advise`, `evict` and `limit`.

use crate::cli::{self, PreferredSide, WindowBounds};
use crate::output::{self, bytes, skipped_line, skipped_map};
use hmm_uapi::client::{Advice, Device};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Says what had better be done with a range.
pub(crate) fn advise(node: &Path, arguments: &cli::Advise) -> anyhow::Result<()> {
    let advice = Advice {
        side: arguments.side.map(|side| match side {
            PreferredSide::None => hmm_uapi::PreferredSide::None,
            PreferredSide::Device => hmm_uapi::PreferredSide::Device,
            PreferredSide::System => hmm_uapi::PreferredSide::System,
        }),
        keep: arguments.keep.map(|keep| keep == cli::YesNo::Yes),
        window: arguments
            .window
            .map(|WindowBounds { least, most }| (least, most)),
        touches: arguments.touches.map(|touches| touches.0),
    };
    let range = arguments.range.0.clone();
    Device::open(node)?.advise(arguments.pid, range, advice)?;
    Ok(())
}

#[derive(Serialize)]
struct EvictReply {
    bytes_evicted: u64,
    pages_skipped: u64,
    skipped: BTreeMap<&'static str, u64>,
}

/// Migrates memory back to system memory.
pub(crate) fn evict(node: &Path, arguments: &cli::Evict) -> anyhow::Result<()> {
    let device = Device::open(node)?;
    let report = match (&arguments.range, arguments.pid, arguments.bytes) {
        (Some(range), Some(pid), _) => device.evict(pid, range.0.clone())?,
        (_, _, Some(size)) => device.evict_bytes(size)?,
        // The command line has one or the other.
        _ => anyhow::bail!("expected --pid with --range, or --bytes"),
    };
    let reply = EvictReply {
        bytes_evicted: report.bytes_evicted,
        pages_skipped: report.skipped.total(),
        skipped: skipped_map(&report.skipped),
    };
    output::print(arguments.json, &reply, |out| {
        writeln!(out, "evicted            {}", bytes(reply.bytes_evicted))?;
        writeln!(out, "skipped pages      {}", skipped_line(&report.skipped))
    })
}

#[derive(Serialize)]
struct LimitReply {
    limit_bytes: Option<u64>,
    resident_bytes: u64,
}

/// Shows or sets how much device memory a process may have.
pub(crate) fn limit(node: &Path, arguments: &cli::Limit) -> anyhow::Result<()> {
    let device = Device::open(node)?;
    let report = match arguments.set {
        Some(limit) => device.set_limit(arguments.pid, limit.0)?,
        None => device.limit(arguments.pid)?,
    };
    let reply = LimitReply {
        limit_bytes: report.limit_bytes,
        resident_bytes: report.resident_bytes,
    };
    output::print(arguments.json, &reply, |out| {
        let limit = reply.limit_bytes.map_or_else(|| "none".to_owned(), bytes);
        writeln!(out, "limit              {limit}")?;
        writeln!(out, "resident           {}", bytes(reply.resident_bytes))
    })
}
