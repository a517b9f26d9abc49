// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl prefetch`.

use crate::cli::{self, Side};
use crate::output::{self, bytes, skipped_line, skipped_map};
use anyhow::bail;
use hmm_uapi::client::{Device, PrefetchReport, PrefetchRequest};
use hmm_uapi::{Direction, MigrateFlags, PrefetchState};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Serialize)]
struct Reply {
    state: &'static str,
    pages_moved: u64,
    bytes_moved: u64,
    pages_skipped: u64,
    skipped: BTreeMap<&'static str, u64>,
}

/// Begins a prefetch and waits for it, for as long as the user says. A prefetch ends with the file that began it, so
/// one that is not waited for would come to nothing.
pub(crate) fn prefetch(node: &Path, arguments: &cli::Prefetch) -> anyhow::Result<()> {
    let device = Device::open(node)?;
    let mut flags = MigrateFlags::default();
    if arguments.populate {
        flags.0 |= MigrateFlags::POPULATE.0;
    }
    let id = device.prefetch(&PrefetchRequest {
        process: arguments.pid,
        range: arguments.range.0.clone(),
        direction: arguments.to.map(|side| match side {
            Side::Device => Direction::ToDevice,
            Side::System => Direction::ToSystem,
        }),
        flags,
    })?;
    let report = match arguments.timeout {
        None => device.wait(id, None)?,
        Some(limit) => {
            let report = within(&device, id, limit)?;
            match report.state {
                PrefetchState::Running => device.cancel(id)?,
                _ => report,
            }
        }
    };
    if let (PrefetchState::Failed, error) = (report.state, report.error) {
        let reason = error.map_or_else(|| "unknown".to_owned(), |error| error.to_string());
        bail!("the prefetch failed at {:#x}: {reason}", report.next);
    }
    print(&device, &report, arguments.json)
}

/// Waits for some time, also if signals come meanwhile.
fn within(
    device: &Device,
    id: hmm_uapi::client::PrefetchId,
    limit: Duration,
) -> anyhow::Result<PrefetchReport> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let report = device.wait(id, Some(left))?;
        if report.state != PrefetchState::Running || left.is_zero() {
            return Ok(report);
        }
    }
}

fn print(device: &Device, report: &PrefetchReport, json: bool) -> anyhow::Result<()> {
    let reply = Reply {
        state: match report.state {
            PrefetchState::Running => "running",
            PrefetchState::Done => "done",
            PrefetchState::Cancelled => "cancelled",
            PrefetchState::Failed => "failed",
        },
        pages_moved: report.pages_moved,
        bytes_moved: report.pages_moved * device.page_bytes(),
        pages_skipped: report.skipped.total(),
        skipped: skipped_map(&report.skipped),
    };
    output::print(json, &reply, |out| {
        writeln!(out, "prefetch           {}", reply.state)?;
        writeln!(
            out,
            "moved              {} pages ({})",
            reply.pages_moved,
            bytes(reply.bytes_moved)
        )?;
        writeln!(out, "skipped pages      {}", skipped_line(&report.skipped))
    })
}
