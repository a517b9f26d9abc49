// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl residency`.

use super::mappings;
use crate::cli;
use crate::maps::Mapping;
use crate::output::{self, bytes};
use hmm_uapi::PageState;
use hmm_uapi::client::{Device, ResidencyCounts};
use serde::Serialize;
use std::ops::Range;
use std::path::Path;

#[derive(Serialize)]
struct Reply {
    system_pages: u64,
    device_pages: u64,
    other_pages: u64,
    mappings: Vec<MappingReply>,
}

#[derive(Serialize)]
struct MappingReply {
    range: String,
    permissions: String,
    name: String,
    system_pages: u64,
    device_pages: u64,
    other_pages: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    runs: Option<Vec<Run>>,
}

#[derive(Serialize)]
struct Run {
    range: String,
    pages: u64,
    side: &'static str,
}

/// Shows how much of a process's memory is where.
pub(crate) fn residency(node: &Path, arguments: &cli::Residency) -> anyhow::Result<()> {
    let device = Device::open(node)?;
    let range = arguments.range.as_ref().map(|range| &range.0);
    let mut sum = ResidencyCounts::default();
    let mut replies = Vec::new();
    for mapping in mappings(arguments.pid, range)? {
        let (counts, runs) = if arguments.runs {
            let (counts, map) = device.residency_map(arguments.pid, mapping.range.clone())?;
            let runs = map.runs().into_iter().map(|(first, pages, state)| {
                let start = mapping.range.start + first as u64 * device.page_bytes();
                Run {
                    range: hexadecimal(&(start..start + pages as u64 * device.page_bytes())),
                    pages: pages as u64,
                    side: side(state),
                }
            });
            (counts, Some(runs.collect()))
        } else {
            (
                device.residency(arguments.pid, mapping.range.clone())?,
                None,
            )
        };
        sum += counts;
        replies.push(reply(mapping, counts, runs));
    }
    let page_bytes = device.page_bytes();
    let reply = Reply {
        system_pages: sum.system_pages,
        device_pages: sum.device_pages,
        other_pages: sum.other_pages,
        mappings: replies,
    };
    output::print(arguments.json, &reply, |out| {
        writeln!(
            out,
            "{:<27} {:4} {:>9} {:>9} {:>9}  name",
            "range", "", "system", "device", "other"
        )?;
        for mapping in &reply.mappings {
            writeln!(
                out,
                "{:<27} {:4} {:>9} {:>9} {:>9}  {}",
                mapping.range,
                mapping.permissions,
                mapping.system_pages,
                mapping.device_pages,
                mapping.other_pages,
                mapping.name
            )?;
            for run in mapping.runs.iter().flatten() {
                writeln!(out, "  {:<25} {:>14}  {}", run.range, run.pages, run.side)?;
            }
        }
        writeln!(
            out,
            "in pages; {} in system memory, {} on the device",
            bytes(reply.system_pages * page_bytes),
            bytes(reply.device_pages * page_bytes)
        )
    })
}

fn reply(mapping: Mapping, counts: ResidencyCounts, runs: Option<Vec<Run>>) -> MappingReply {
    MappingReply {
        range: hexadecimal(&mapping.range),
        permissions: String::from_utf8_lossy(&mapping.permissions).into_owned(),
        name: mapping.name,
        system_pages: counts.system_pages,
        device_pages: counts.device_pages,
        other_pages: counts.other_pages,
        runs,
    }
}

fn hexadecimal(range: &Range<u64>) -> String {
    format!("{:x}-{:x}", range.start, range.end)
}

fn side(state: PageState) -> &'static str {
    match state {
        PageState::System => "system",
        PageState::Device => "device",
        PageState::None => "other",
    }
}
