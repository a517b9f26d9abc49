// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl stats`.

use crate::cli;
use crate::output::{self, bytes, skipped_line, skipped_map};
use hmm_uapi::client::{Device, Skipped};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Serialize)]
struct Reply {
    bytes_to_device: u64,
    bytes_to_system: u64,
    bytes_by_fault: u64,
    bytes_by_eviction: u64,
    resident_bytes: u64,
    peak_resident_bytes: u64,
    cpu_faults: u64,
    cpu_faults_failed: u64,
    batches: u64,
    doorbells: u64,
    copy_errors: u64,
    timeouts: u64,
    protocol_errors: u64,
    skipped: BTreeMap<&'static str, u64>,
}

/// Shows the device's counters.
pub(crate) fn stats(node: &Path, arguments: &cli::Stats) -> anyhow::Result<()> {
    let stats = Device::open(node)?.stats()?;
    let skipped = Skipped::new(stats.pages_skipped);
    let reply = Reply {
        bytes_to_device: stats.bytes_to_device,
        bytes_to_system: stats.bytes_to_system,
        bytes_by_fault: stats.bytes_by_fault,
        bytes_by_eviction: stats.bytes_by_eviction,
        resident_bytes: stats.resident_bytes,
        peak_resident_bytes: stats.peak_resident_bytes,
        cpu_faults: stats.cpu_faults,
        cpu_faults_failed: stats.cpu_faults_failed,
        batches: stats.batches,
        doorbells: stats.doorbells,
        copy_errors: stats.copy_errors,
        timeouts: stats.timeouts,
        protocol_errors: stats.protocol_errors,
        skipped: skipped_map(&skipped),
    };
    output::print(arguments.json, &reply, |out| {
        writeln!(out, "to device          {}", bytes(reply.bytes_to_device))?;
        writeln!(out, "to system          {}", bytes(reply.bytes_to_system))?;
        writeln!(out, "  by CPU faults    {}", bytes(reply.bytes_by_fault))?;
        writeln!(out, "  by eviction      {}", bytes(reply.bytes_by_eviction))?;
        writeln!(out, "resident           {}", bytes(reply.resident_bytes))?;
        writeln!(
            out,
            "  highest          {}",
            bytes(reply.peak_resident_bytes)
        )?;
        writeln!(
            out,
            "CPU faults         {} ({} failed)",
            reply.cpu_faults, reply.cpu_faults_failed
        )?;
        writeln!(out, "batches            {}", reply.batches)?;
        writeln!(out, "doorbells          {}", reply.doorbells)?;
        writeln!(out, "copy errors        {}", reply.copy_errors)?;
        writeln!(out, "time-outs          {}", reply.timeouts)?;
        writeln!(out, "protocol errors    {}", reply.protocol_errors)?;
        writeln!(out, "skipped pages      {}", skipped_line(&skipped))
    })
}
