// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the figures of a benchmark go, and what its exit code says of them.

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use hmm_report::html::{Results, Row, State};
use serde::Serialize;
use serde_json::Value;

use crate::FAILURE;
use crate::report::Pages;

/// Arguments that benchmarks share.
#[derive(clap::Args)]
pub(super) struct Publish {
    /// Write the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure once more with a recording of driver and device, and write all figures and a picture of it: one HTML file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// End with 1 unless the goals are met.
    #[arg(long)]
    strict: bool,
}

impl Publish {
    /// Recordings that become a file, if one is wanted.
    pub(super) fn pages(&self) -> anyhow::Result<Option<Pages>> {
        Pages::begin(self.report.as_deref())
    }

    /// Prints a report and writes it to the file, if one was asked for.
    pub(super) fn report(
        &self,
        report: &(impl Display + Serialize),
        is_missed: bool,
        pages: Option<(&str, &Pages)>,
    ) -> anyhow::Result<ExitCode> {
        print!("{report}");
        if let Some((title, pages)) = pages {
            pages.write(
                title,
                &results(&serde_json::to_value(report)?, pages.parts().len()),
            )?;
        }
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

/// The figures of a benchmark's JSON as a table of a report with so many recordings.
pub(super) fn results(report: &Value, parts: usize) -> Results {
    let figures = report["figures"].as_array().map_or(&[][..], Vec::as_slice);
    let number = |value: &Value| {
        value
            .as_f64()
            .map_or_else(String::new, |n| format!("{n:.3}"))
    };
    let rows = figures.iter().map(|figure| {
        let word = |name: &str| figure[name].as_str().unwrap_or_default().to_owned();
        let goal = match &figure["goal"] {
            Value::Object(goal) => (goal.iter().next())
                .map_or_else(String::new, |(kind, number)| {
                    format!("{} {number}", kind.replace('_', " "))
                }),
            _ => String::new(),
        };
        let met = word("met");
        let baseline = &figure["baseline"];
        let compared = match baseline["ratio"].as_f64() {
            Some(ratio) => format!(
                "{ratio:.2} of {}",
                baseline["name"].as_str().unwrap_or_default()
            ),
            None => String::new(),
        };
        Row {
            cells: vec![
                word("name"),
                format!("{} {}", number(&figure["value"]), word("unit")),
                format!("{} to {}", number(&figure["min"]), number(&figure["max"])),
                compared,
                goal,
                met.replace('_', " "),
            ],
            state: match met.as_str() {
                "met" => State::Good,
                "missed" => State::Bad,
                _ => State::Other,
            },
            text: word("command_line"),
            part: (parts == 1).then_some(0),
            case: None,
        }
    });
    Results {
        heads: ["figure", "median", "least to most", "compared", "goal", ""]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::results;
    use hmm_report::html::State;
    use serde_json::json;

    #[test]
    fn figures_become_rows() {
        let report = json!({"figures": [
            {"name": "a", "unit": "GiB/s", "value": 1.5, "min": 1.0, "max": 2.0,
             "baseline": {"name": "memcpy", "ratio": 0.5}, "goal": {"at_least": 0.8}, "met": "missed"},
            {"name": "b", "value": 1.0, "min": 1.0, "max": 1.0},
        ]});
        let results = results(&report, 1);
        assert_eq!(results.heads.len(), results.rows[0].cells.len());
        assert_eq!(
            results.rows[0].cells,
            [
                "a",
                "1.500 GiB/s",
                "1.000 to 2.000",
                "0.50 of memcpy",
                "at least 0.8",
                "missed"
            ]
        );
        assert_eq!(results.rows[0].state, State::Bad);
        assert_eq!(results.rows[1].state, State::Other);
        assert_eq!(results.rows[1].part, Some(0));
    }
}
