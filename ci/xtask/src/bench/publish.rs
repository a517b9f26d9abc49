// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the figures of a benchmark go, and what its exit code says of them.

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use crate::FAILURE;

/// Arguments that benchmarks share.
#[derive(clap::Args)]
pub(super) struct Publish {
    /// Write the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// End with 1 unless the goals are met.
    #[arg(long)]
    strict: bool,
}

impl Publish {
    /// Prints a report and writes it to the file, if one was asked for.
    pub(super) fn report(
        &self,
        report: &(impl Display + Serialize),
        is_missed: bool,
    ) -> anyhow::Result<ExitCode> {
        print!("{report}");
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(report)?;
            fs::write(path, text + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(if self.strict && is_missed {
            ExitCode::from(FAILURE)
        } else {
            ExitCode::SUCCESS
        })
    }
}
