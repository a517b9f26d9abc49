// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All figures of a run.

use std::fmt;

use hmm_figures::load_average;
use serde::Serialize;

use super::figure::Figure;

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Everything here is measured; nothing is modelled.
    kind: &'static str,
    /// Of the host.
    processors: usize,
    /// The host's load when the run began, and when it ended: other work makes figures worse, and those of emulated
    /// processors more than others.
    load_begin: Option<f64>,
    load_end: Option<f64>,
    figures: Vec<Figure>,
}

impl Report {
    /// A report of a run that begins now.
    pub(super) fn new() -> Self {
        Self {
            kind: "measured",
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            load_begin: load_average(),
            load_end: None,
            figures: Vec::new(),
        }
    }

    /// Adds figures.
    pub(super) fn add(&mut self, figures: Vec<Figure>) {
        self.figures.extend(figures);
    }

    /// The run ends now.
    pub(super) fn finish(mut self) -> Self {
        self.load_end = load_average();
        self
    }

    /// Whether there is no figure.
    pub(super) fn is_empty(&self) -> bool {
        self.figures.is_empty()
    }

    /// Whether a goal was missed.
    pub(super) fn is_missed(&self) -> bool {
        self.figures.iter().any(Figure::is_missed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = |load: Option<f64>| {
            load.map_or_else(|| "unknown".to_owned(), |load| format!("{load:.1}"))
        };
        writeln!(
            formatter,
            "{} processors, load {} at the beginning, {} at the end; all measured",
            self.processors,
            load(self.load_begin),
            load(self.load_end)
        )?;
        let mut last = None;
        for figure in &self.figures {
            let guest = figure.guest();
            if last != Some(guest) {
                writeln!(
                    formatter,
                    "\nLinux {}, {}, command line: {}",
                    guest.kernel, guest.accelerator, guest.command_line
                )?;
                last = Some(guest);
            }
            writeln!(formatter, "{figure}")?;
        }
        Ok(())
    }
}
