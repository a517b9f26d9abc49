// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl watch`.

use crate::cli;
use crate::output::bytes;
use anyhow::Context;
use hmm_uapi::client::{Device, Presence};
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

#[derive(Serialize)]
struct Line {
    seconds: f64,
    device: &'static str,
    resident_bytes: Option<u64>,
}

/// Shows whether the device is there, and each change, until it is gone.
pub(crate) fn watch(node: &Path, arguments: &cli::Watch) -> anyhow::Result<()> {
    let device = Device::open(node)?;
    let begin = Instant::now();
    let mut before = None;
    loop {
        let presence = device.wait_for_change(before)?;
        let line = Line {
            seconds: begin.elapsed().as_secs_f64(),
            device: presence.name(),
            // A device that was unbound in order has no counters any more.
            resident_bytes: device.stats().ok().map(|stats| stats.resident_bytes),
        };
        print(&line, arguments.json).context("cannot write")?;
        if presence == Presence::Gone {
            return Ok(());
        }
        before = Some(presence);
    }
}

fn print(line: &Line, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, line)?;
        writeln!(out)?;
    } else {
        let resident = line.resident_bytes.map_or("-".to_owned(), bytes);
        writeln!(
            out,
            "{:10.3} s  {:8}  resident {resident}",
            line.seconds, line.device
        )?;
    }
    out.flush()
}
