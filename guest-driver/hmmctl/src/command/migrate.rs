// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl migrate`.

use super::mappings;
use crate::cli::{self, Side};
use crate::output::{self, bytes, skipped_line, skipped_map};
use hmm_uapi::client::{Device, MigrateReport, MigrateRequest};
use hmm_uapi::{Direction, MigrateFlags};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Serialize)]
struct Reply {
    to: &'static str,
    pages_moved: u64,
    bytes_moved: u64,
    pages_skipped: u64,
    skipped: BTreeMap<&'static str, u64>,
    batches: u64,
    doorbells: u64,
}

/// Moves memory of a process.
pub(crate) fn migrate(node: &Path, arguments: &cli::Migrate) -> anyhow::Result<()> {
    let device = Device::open(node)?;
    let (direction, to) = match arguments.to {
        Side::Device => (Direction::ToDevice, "device"),
        Side::System => (Direction::ToSystem, "system"),
    };
    // A range that the user chose goes to the driver as it is, so that the parts without a mapping
    // are counted too.
    let ranges = match &arguments.range {
        Some(range) => vec![range.0.clone()],
        None => mappings(arguments.pid, None)?
            .into_iter()
            .map(|mapping| mapping.range)
            .collect(),
    };
    let mut sum = MigrateReport::default();
    for range in ranges {
        let report = device.migrate_all(&MigrateRequest {
            process: arguments.pid,
            range,
            direction,
            flags: flags(arguments),
        })?;
        sum.pages_moved += report.pages_moved;
        sum.skipped += report.skipped;
        sum.batches += report.batches;
        sum.doorbells += report.doorbells;
    }
    let reply = Reply {
        to,
        pages_moved: sum.pages_moved,
        bytes_moved: sum.pages_moved * device.page_bytes(),
        pages_skipped: sum.skipped.total(),
        skipped: skipped_map(&sum.skipped),
        batches: sum.batches,
        doorbells: sum.doorbells,
    };
    output::print(arguments.json, &reply, |out| {
        writeln!(
            out,
            "moved to {to}     {} pages ({})",
            reply.pages_moved,
            bytes(reply.bytes_moved)
        )?;
        writeln!(out, "skipped pages      {}", skipped_line(&sum.skipped))?;
        writeln!(out, "batches            {}", reply.batches)?;
        writeln!(out, "doorbells          {}", reply.doorbells)
    })
}

fn flags(arguments: &cli::Migrate) -> MigrateFlags {
    let mut flags = MigrateFlags::default();
    if arguments.populate {
        flags.0 |= MigrateFlags::POPULATE.0;
    }
    if arguments.mlocked {
        flags.0 |= MigrateFlags::MLOCKED.0;
    }
    flags
}
