// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask report`: a picture of a recording, and its summary. `--report FILE` of other commands makes the recording, too.

mod collect;
mod pages;

pub(crate) use collect::{
    Collection, DeviceTrace, READER, fetch, own_reader, reader_like, recorder,
};
pub(crate) use pages::Pages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use hmm_report::html::{self, Part};
use hmm_report::recording::Recording;
use hmm_report::summary::Summary;
use serde_json::Value;

/// Options of `report`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What `hmmctl record` wrote in the guest, or the text of the guest's `/sys/kernel/tracing/trace`.
    #[arg(value_name = "RECORDING")]
    recording: PathBuf,
    /// What the device wrote with `--trace FILE` during the same time.
    #[arg(long, value_name = "FILE")]
    device: Option<PathBuf>,
    /// The device in the guest, where there are several, as events name it: `virtio1` …
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where to write the picture. Without it there is only the summary.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// Makes a report.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let text = read(&arguments.recording)?;
    let recording = Recording::read(&String::from_utf8_lossy(&text), arguments.name.as_deref())
        .with_context(|| format!("cannot use {}", arguments.recording.display()))?;
    let trace = match &arguments.device {
        Some(path) => device_trace(&read(path)?)
            .with_context(|| format!("{} is no trace of the device", path.display()))?,
        None => Vec::new(),
    };
    if let Some(output) = &arguments.output {
        write(output, &recording, &trace)?;
    }
    let summary = Summary::of(&recording);
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&summary)?),
        false => print!("{summary}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// A recording and the device's trace, from files.
pub(crate) fn read_part(name: &str, recording: &Path, trace: &Path) -> Result<Part> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    Ok(Part {
        name: name.to_owned(),
        recording: Recording::read(&String::from_utf8_lossy(&read(recording)?), None)
            .with_context(|| format!("cannot use {}", recording.display()))?,
        trace: device_trace(&read(trace)?)
            .with_context(|| format!("{} is no trace of the device", trace.display()))?,
    })
}

fn write(output: &Path, recording: &Recording, trace: &[Value]) -> Result<()> {
    fs::write(output, html::report(recording, trace))
        .with_context(|| format!("cannot write {}", output.display()))
}

/// The events of a device's trace. A process that was killed has not ended the list.
fn device_trace(text: &[u8]) -> Result<Vec<Value>, serde_json::Error> {
    let complete = serde_json::from_slice(text);
    complete.or_else(|error| {
        let text = String::from_utf8_lossy(text);
        if !text.starts_with('[') || text.trim_end().ends_with(']') {
            return Err(error);
        }
        let whole = text.rfind("},").map_or("[", |end| &text[..=end]);
        serde_json::from_str(&format!("{whole}]"))
    })
}

#[cfg(test)]
mod tests {
    use super::device_trace;

    #[test]
    fn a_trace_that_was_cut_off_has_what_is_whole() {
        let whole = br#"[{"a":1},
{"b":2}]"#;
        assert_eq!(device_trace(whole).unwrap().len(), 2);
        let cut = br#"[{"a":1},
{"b":2},
{"c":"#;
        assert_eq!(device_trace(cut).unwrap().len(), 2);
        assert!(device_trace(b"<html>").is_err());
        assert!(device_trace(b"{\"a\":1},").is_err());
    }
}
