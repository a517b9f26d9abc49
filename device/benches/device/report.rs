// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Figures and how they are shown.

use std::fmt;

use hmm_figures::{Goal, Spread, Verdict};
use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    /// What the number is: `ratio` to memcpy (larger is better), or `ns` (smaller is better).
    unit: &'static str,
    /// The median of all rounds; absent if this machine cannot measure it.
    value: Option<f64>,
    /// A quarter of all rounds was below.
    #[serde(skip_serializing_if = "Option::is_none")]
    lower_quartile: Option<f64>,
    /// A quarter of all rounds was above.
    #[serde(skip_serializing_if = "Option::is_none")]
    upper_quartile: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
    rounds: usize,
    /// The same by processor time, which does not grow when others want the processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_processor_time: Option<f64>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Figure {
    pub(crate) fn new(
        name: impl Into<String>,
        unit: &'static str,
        goal: Option<f64>,
        values: Vec<f64>,
    ) -> Self {
        let rounds = values.len();
        let spread = Spread::new(values);
        let at = |part: f64| spread.as_ref().map(|spread| spread.at(part));
        let goal = goal.map(|goal| match unit {
            "ns" => Goal::AtMost(goal),
            _ => Goal::AtLeast(goal),
        });
        Self {
            name: name.into(),
            unit,
            value: at(0.5),
            lower_quartile: at(0.25),
            upper_quartile: at(0.75),
            goal,
            rounds,
            by_processor_time: None,
            note: None,
        }
    }

    pub(crate) fn with_cost(mut self, values: Vec<f64>) -> Self {
        self.by_processor_time = Self::new("", "", None, values).value;
        self
    }

    pub(crate) fn absent(name: &str, unit: &'static str, goal: f64, note: String) -> Self {
        Self {
            note: Some(note),
            ..Self::new(name, unit, Some(goal), Vec::new())
        }
    }

    fn verdict(&self) -> Option<Verdict> {
        self.goal.map(|goal| goal.verdict(self.value))
    }
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Everything here is measured; nothing is modelled.
    pub(crate) kind: &'static str,
    pub(crate) processors: usize,
    pub(crate) copies: String,
    pub(crate) footprint_bytes: u64,
    /// Device memory that huge pages map: in the device, and for memcpy. Guest memory has ordinary pages for both.
    pub(crate) huge_bytes: (u64, u64),
    /// Load of the machine when the run began: other work makes figures worse.
    pub(crate) load_average: Option<f64>,
    pub(crate) figures: Vec<Figure>,
    /// Batch sizes and queue depths.
    pub(crate) sweep: Vec<Figure>,
}

impl Report {
    pub(crate) fn goals_are_met(&self) -> bool {
        (self.figures.iter()).all(|figure| figure.verdict() != Some(Verdict::Missed))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} processors, load {}, best copies ({}), {} MiB on each side (huge pages map {} MiB of the device's memory, {} MiB for \
             memcpy); all measured",
            self.processors,
            self.load_average
                .map_or_else(|| "unknown".to_owned(), |load| format!("{load:.1}")),
            self.copies,
            self.footprint_bytes >> 20,
            self.huge_bytes.0 >> 20,
            self.huge_bytes.1 >> 20,
        )?;
        for figure in self.figures.iter().chain(&self.sweep) {
            write!(formatter, "{:44}", figure.name)?;
            match figure.value {
                Some(value) => write!(formatter, "{value:9.3} {:5}", figure.unit)?,
                None => write!(formatter, "        - {:5}", figure.unit)?,
            }
            if let (Some(lower), Some(upper)) = (figure.lower_quartile, figure.upper_quartile) {
                write!(formatter, " ({lower:.3} to {upper:.3})")?;
            }
            if let Some(cost) = figure.by_processor_time {
                write!(formatter, ", by processor time {cost:.3}")?;
            }
            if let (Some(goal), Some(verdict)) = (figure.goal, figure.verdict()) {
                write!(formatter, "  goal {goal}: {verdict}")?;
            }
            if let Some(note) = &figure.note {
                write!(formatter, " ({note})")?;
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}
