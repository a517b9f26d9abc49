// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bench`.

mod guest;
mod programs;
mod publish;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::FAILURE;
use crate::report::Pages;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

/// What can be measured.
#[derive(clap::Subcommand)]
enum What {
    /// The device, from a front end through the ring to the copy, beside a memcpy of the same pages in the same run.
    Device(Device),
    /// The driver, from the call to the last page, beside the kernel's own test_hmm in the same guest.
    Guest(guest::Arguments),
    /// Programs of this machine under `hmmctl run`, beside plain runs in the same guest.
    Programs(programs::Arguments),
}

/// Arguments of `bench device`.
#[derive(clap::Args)]
struct Device {
    /// Write the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write all figures as a table too: one HTML file. No guest runs, so there is no picture of one.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Time for each figure, seconds.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seconds: u32,
    /// Measure only figures whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<OsString>,
    /// End with 1 unless the goals are met.
    #[arg(long)]
    strict: bool,
}

/// Measures.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.what {
        What::Device(device) => run_device(device),
        What::Guest(arguments) => guest::run(arguments),
        What::Programs(arguments) => programs::run(arguments),
    }
}

fn run_device(device: &Device) -> anyhow::Result<ExitCode> {
    let mut cargo = Command::new("cargo");
    cargo.args(["bench", "--quiet", "--package", "vhost-user-hmm"]);
    cargo.args(["--bench", "device", "--", "--seconds"]);
    cargo.arg(device.seconds.to_string());
    let pages = Pages::begin(device.report.as_deref())?;
    let folder = tempfile::tempdir().context("cannot make a folder for the figures")?;
    let of_report = pages.is_some().then(|| folder.path().join("figures.json"));
    if let Some(file) = device.json.as_ref().or(of_report.as_ref()) {
        // The benchmark runs in the package's folder.
        let file = std::path::absolute(file).context("Cannot tell where the JSON file is to be")?;
        cargo.arg("--json").arg(file);
    }
    if let Some(text) = &device.only {
        cargo.arg("--only").arg(text);
    }
    if device.strict {
        cargo.arg("--strict");
    }
    let status = cargo.status().context("Cannot run cargo")?;
    if let (Some(pages), Some(file)) = (&pages, device.json.as_ref().or(of_report.as_ref())) {
        let text = std::fs::read(file)
            .with_context(|| format!("there are no figures in {}", file.display()))?;
        let report = serde_json::from_slice(&text)
            .with_context(|| format!("{} has no figures", file.display()))?;
        pages.write("bench device", &publish::results(&report, 0))?;
    }
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILURE)
    })
}
