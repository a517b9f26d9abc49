// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The figures of the programs.

use std::fmt;

use hmm_figures::{Goal, Spread, Verdict, load_average};
use hmm_vm::accel::Accelerator;
use serde::Serialize;

use super::POLICIES;

/// The part of the memory at rest that is to be on the device.
const RESTING_GOAL: f64 = 0.8;

/// One run of a program alone and one under each policy.
pub(super) struct Round {
    /// Seconds, alone.
    pub(super) plain: f64,
    /// For each policy: the time by the time alone, and the part of the memory at rest that was away.
    pub(super) policies: Vec<(f64, Option<f64>)>,
}

/// All rounds of a program.
pub(super) struct Rounds {
    program: &'static str,
    rounds: Vec<Round>,
}

impl Rounds {
    pub(super) fn new(program: &'static str) -> Self {
        Self {
            program,
            rounds: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, round: Round) {
        self.rounds.push(round);
    }

    fn plain(&self) -> Option<Spread> {
        Spread::new(self.rounds.iter().map(|round| round.plain).collect())
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (index, (policy, most)) in POLICIES.iter().enumerate() {
            let of_policy =
                || (self.rounds.iter()).filter_map(move |round| round.policies.get(index));
            let name = |what: &str| format!("{}, {policy}, {what}", self.program);
            let ratios = of_policy().map(|(ratio, _)| *ratio).collect();
            figures.extend(Figure::new(
                name("time by time alone"),
                ratios,
                Goal::AtMost(*most),
            ));
            let resting = of_policy().filter_map(|(_, resting)| *resting).collect();
            figures.extend(Figure::new(
                name("at rest, away"),
                resting,
                Goal::AtLeast(RESTING_GOAL),
            ));
        }
        figures
    }
}

impl fmt::Display for Rounds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(plain) = self.plain() {
            write!(out, "{:.1} s alone", plain.median())?;
        }
        for figure in self.figures() {
            write!(out, "; {:.2} {}", figure.value, figure.name)?;
        }
        Ok(())
    }
}

/// One figure: the median of all rounds.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    kind: &'static str,
    value: f64,
    min: f64,
    max: f64,
    samples: usize,
    goal: Goal,
    met: Verdict,
}

impl Figure {
    fn new(name: String, values: Vec<f64>, goal: Goal) -> Option<Self> {
        let spread = Spread::new(values)?;
        Some(Self {
            name,
            kind: "measured",
            value: spread.median(),
            min: spread.min(),
            max: spread.max(),
            samples: spread.count(),
            goal,
            met: goal.verdict(Some(spread.median())),
        })
    }
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    kind: &'static str,
    kernel: String,
    accelerator: String,
    processors: usize,
    /// The host's load when the run began, and when it ended.
    load_begin: Option<f64>,
    load_end: Option<f64>,
    /// Programs that this machine does not have.
    missing: Vec<&'static str>,
    /// Seconds that each program takes alone.
    alone: Vec<(&'static str, f64)>,
    figures: Vec<Figure>,
}

impl Report {
    /// A report of a run that begins now.
    pub(super) fn new(kernel: &str, accelerator: Accelerator, missing: Vec<&'static str>) -> Self {
        Self {
            kind: "measured",
            kernel: kernel.to_owned(),
            accelerator: accelerator.to_string(),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            load_begin: load_average(),
            load_end: None,
            missing,
            alone: Vec::new(),
            figures: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, rounds: &Rounds) {
        self.alone
            .extend(rounds.plain().map(|plain| (rounds.program, plain.median())));
        self.figures.extend(rounds.figures());
    }

    /// The run ends now.
    pub(super) fn finish(mut self) -> Self {
        self.load_end = load_average();
        self
    }

    /// Whether a goal was missed.
    pub(super) fn is_missed(&self) -> bool {
        (self.figures.iter()).any(|figure| figure.met != Verdict::Met)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = |load: Option<f64>| {
            load.map_or_else(|| "unknown".to_owned(), |load| format!("{load:.1}"))
        };
        writeln!(
            out,
            "Linux {}, {}; {} processors, load {} at the beginning, {} at the end; all measured",
            self.kernel,
            self.accelerator,
            self.processors,
            load(self.load_begin),
            load(self.load_end)
        )?;
        for (program, seconds) in &self.alone {
            writeln!(out, "{program:46} {seconds:6.2} s alone")?;
        }
        for figure in &self.figures {
            writeln!(
                out,
                "{:46} {:6.2} ({:.2} to {:.2})  goal {}: {}",
                figure.name, figure.value, figure.min, figure.max, figure.goal, figure.met
            )?;
        }
        for program in &self.missing {
            writeln!(out, "{program:46} not on this machine")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, Round, Rounds};
    use hmm_vm::accel::Accelerator;

    fn rounds(ratios: [f64; 3], resting: f64) -> Rounds {
        let mut rounds = Rounds::new("python3");
        for ratio in ratios {
            rounds.add(Round {
                plain: 2.0,
                policies: vec![(1.0, None), (ratio, Some(resting))],
            });
        }
        rounds
    }

    fn report(rounds: &Rounds) -> Report {
        let mut report = Report::new("7", Accelerator::Tcg, vec!["redis"]);
        report.add(rounds);
        report.finish()
    }

    #[test]
    fn the_median_is_judged() {
        assert!(!report(&rounds([1.0, 1.9, 7.0], 0.8)).is_missed());
        assert!(report(&rounds([1.0, 2.1, 7.0], 0.8)).is_missed());
        assert!(report(&rounds([1.0, 1.9, 7.0], 0.7)).is_missed());
    }

    #[test]
    fn a_program_that_is_missing_is_told() {
        let text = report(&rounds([1.0, 1.9, 7.0], 0.8)).to_string();
        assert!(
            text.lines()
                .any(|line| line.starts_with("redis ") && line.ends_with("not on this machine"))
        );
        assert!(text.contains("python3, churn, at rest, away"));
    }
}
