// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One HTML file with results, and with the recordings that were made meanwhile: `--report FILE` of `test`, `suite` and `bench`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hmm_report::html::{self, Part, Results};

/// Recordings that become one file.
#[derive(Debug)]
pub(crate) struct Pages {
    output: PathBuf,
    parts: Vec<Part>,
}

impl Pages {
    /// None yet, if a file is wanted.
    pub(crate) fn begin(output: Option<&Path>) -> Result<Option<Self>> {
        let Some(output) = output else {
            return Ok(None);
        };
        // Found out before guests run for hours.
        fs::write(output, "").with_context(|| format!("cannot write {}", output.display()))?;
        Ok(Some(Self {
            output: output.to_owned(),
            parts: Vec::new(),
        }))
    }

    /// Adds a recording; its place, or nothing if it could not be made, which is said.
    pub(crate) fn add(&mut self, part: Result<Part>) -> Option<usize> {
        match part {
            Ok(part) => {
                self.parts.push(part);
                Some(self.parts.len() - 1)
            }
            Err(error) => {
                eprintln!("warning: the report lacks a recording: {error:#}");
                None
            }
        }
    }

    /// The recordings so far.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Writes the file.
    pub(crate) fn write(&self, title: &str, results: &Results) -> Result<()> {
        let page = html::collection(title, results, &self.parts);
        fs::write(&self.output, page)
            .with_context(|| format!("cannot write {}", self.output.display()))?;
        println!("report: {}", self.output.display());
        Ok(())
    }
}
