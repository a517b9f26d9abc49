// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The figures: what is measured, what it is compared with, and what was to be reached.

use std::{
    fmt,
    time::{Duration, Instant},
};

use hmm_protocol::Op;
use serde::Serialize;

use crate::{
    baseline::Baseline,
    load::{Batch, Random, Shape},
    path::Path,
};

/// Bytes of one round of a figure: long enough to be measured, short enough that the machine is the same for both.
const ROUND_BYTES: u64 = 32 << 20;
/// Figures are ratios of times: memcpy's by the device's.
const PLAIN_PAGES_GOAL: f64 = 0.95;
const BEST_PAGES_GOAL: f64 = 1.15;
const EXTENTS_GOAL: f64 = 1.0;
const OVERHEAD_GOAL_NS: f64 = 40.0;
const QUEUES_GOAL: f64 = 1.6;

const BEYOND: &str = "time beyond memcpy, of a page";
const WORDS: &str = "time of an entry of 8 bytes, cached";
const QUEUES: &str = "two bulk queues by one";

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
    goal: Option<f64>,
    rounds: usize,
    /// The same by processor time, which does not grow when others want the processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_processor_time: Option<f64>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Figure {
    fn new(
        name: impl Into<String>,
        unit: &'static str,
        goal: Option<f64>,
        mut values: Vec<f64>,
    ) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let last = values.len().checked_sub(1)?;
            values.get((last as f64 * part).round() as usize).copied()
        };
        Self {
            name: name.into(),
            unit,
            value: at(0.5),
            lower_quartile: at(0.25),
            upper_quartile: at(0.75),
            goal,
            rounds: values.len(),
            by_processor_time: None,
            note: None,
        }
    }

    fn with_cost(mut self, values: Vec<f64>) -> Self {
        self.by_processor_time = Self::new("", "", None, values).value;
        self
    }

    fn absent(name: &str, unit: &'static str, goal: f64, note: String) -> Self {
        Self {
            note: Some(note),
            ..Self::new(name, unit, Some(goal), Vec::new())
        }
    }

    fn is_met(&self) -> bool {
        match (self.value, self.goal) {
            (Some(value), Some(goal)) if self.unit == "ns" => value <= goal,
            (Some(value), Some(goal)) => value >= goal,
            _ => true,
        }
    }
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Everything here is measured; nothing is modelled.
    kind: &'static str,
    processors: usize,
    copies: &'static str,
    footprint_bytes: u64,
    /// Load of the machine when the run began: other work makes figures worse.
    load_average: Option<f64>,
    figures: Vec<Figure>,
    /// Batch sizes and queue depths.
    sweep: Vec<Figure>,
}

impl Report {
    pub(crate) fn goals_are_met(&self) -> bool {
        self.figures.iter().all(Figure::is_met)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} processors, load {}, {} copies, {} MiB on each side; all measured",
            self.processors,
            self.load_average
                .map_or_else(|| "unknown".to_owned(), |load| format!("{load:.1}")),
            self.copies,
            self.footprint_bytes >> 20,
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
            if let Some(goal) = figure.goal {
                let verdict = match (figure.value, figure.is_met()) {
                    (None, _) => "not measured",
                    (_, true) => "met",
                    (_, false) => "MISSED",
                };
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

/// Runs everything; `time` for each figure.
pub(crate) fn measure(time: Duration, footprint: u64, only: &str) -> Report {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load_average = std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok());
    let baseline = Baseline::new(footprint);
    let mut bench = Bench {
        baseline,
        time,
        footprint,
        random: Random::new(1),
    };
    let poll = if processors > 1 { "200" } else { "0" };
    let mut plain = Path::start(footprint, 1, &["--copy", "ordinary", "--poll-us", poll]);
    let mut best = Path::start(footprint, 1, &["--copy", "auto", "--poll-us", poll]);
    let mut figures = Vec::new();
    for op in [Op::ToDevice, Op::ToSystem] {
        let named = |what: &str| format!("{} {what}", op.name());
        let pages = Case::new(Shape::PageList, op, 512, 2);
        let entries = Case::new(Shape::Pages, op, 512, 2);
        let extents = Case::new(Shape::Extents, op, 8, 2);
        for (ordinary, name, case, goal) in [
            (
                true,
                named("4 KiB pages x 512, plain copies"),
                pages,
                Some(PLAIN_PAGES_GOAL),
            ),
            (
                false,
                named("4 KiB pages x 512, best copies"),
                pages,
                Some(BEST_PAGES_GOAL),
            ),
            (
                false,
                named("4 KiB entries x 512, best copies"),
                entries,
                None,
            ),
            (
                false,
                named("2 MiB extents x 8, best copies"),
                extents,
                Some(EXTENTS_GOAL),
            ),
        ] {
            if name.contains(only) {
                let path = if ordinary { &mut plain } else { &mut best };
                figures.push(bench.ratio(path, name, case, goal));
            }
        }
    }
    if BEYOND.contains(only) {
        figures.push(bench.overhead(&mut plain));
    }
    if WORDS.contains(only) {
        figures.push(bench.words(&mut plain));
    }
    if QUEUES.contains(only) {
        figures.push(bench.queues(processors));
    }
    let mut sweep = Vec::new();
    for depth in [1, 2, 4] {
        for count in [1, 4, 16, 64, 256, 512, 1024, 4096] {
            let name = format!("sweep: to_device 4 KiB pages x {count}, depth {depth}");
            if name.contains(only) {
                let case = Case::new(Shape::PageList, Op::ToDevice, count, depth);
                sweep.push(bench.ratio(&mut best, name, case, None));
            }
        }
    }
    Report {
        kind: "measured",
        processors,
        copies: if cfg!(target_arch = "x86_64") && is_avx2() {
            "avx2-non-temporal"
        } else {
            "ordinary"
        },
        footprint_bytes: footprint,
        load_average,
        figures,
        sweep,
    }
}

#[cfg(target_arch = "x86_64")]
fn is_avx2() -> bool {
    is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn is_avx2() -> bool {
    false
}

/// What is copied, how many entries a batch, how many batches in flight.
#[derive(Clone, Copy)]
struct Case {
    shape: Shape,
    op: Op,
    count: u64,
    depth: usize,
}

impl Case {
    fn new(shape: Shape, op: Op, count: u64, depth: usize) -> Self {
        Self {
            shape,
            op,
            count,
            depth,
        }
    }
}

/// The times of a round: what passed, and what was spent.
struct Round {
    memcpy: Duration,
    memcpy_cost: Duration,
    device: Duration,
    device_cost: Duration,
}

struct Bench {
    baseline: Baseline,
    time: Duration,
    footprint: u64,
    random: Random,
}

impl Bench {
    fn batches(&mut self, shape: Shape, op: Op, count: u64, rounds_bytes: u64) -> Vec<Batch> {
        let one = Batch::random(shape, op, count, self.footprint, &mut self.random);
        let number = (rounds_bytes / one.bytes()).clamp(4, 512);
        (0..number)
            .map(|_| Batch::random(shape, op, count, self.footprint, &mut self.random))
            .collect()
    }

    /// Alternates memcpy and the device and calls `each` with the times of every round.
    fn rounds(
        &mut self,
        path: &mut Path,
        batches: &[Batch],
        depth: usize,
        mut each: impl FnMut(&Round),
    ) {
        let prepared = path.prepare(batches);
        // The first round warms up caches, tables and the device's thread.
        self.baseline.run(&path.front_end.guest, batches);
        path.run(&prepared, depth, 1);
        let started = Instant::now();
        let mut rounds = 0;
        while rounds < 3 || started.elapsed() < self.time {
            let (memcpy, memcpy_cost) = self.baseline.run(&path.front_end.guest, batches);
            let round = Round {
                memcpy,
                memcpy_cost,
                device: path.run(&prepared, depth, 1),
                device_cost: path.run_for_cost(&prepared),
            };
            each(&round);
            rounds += 1;
        }
    }

    fn ratio(&mut self, path: &mut Path, name: String, case: Case, goal: Option<f64>) -> Figure {
        let batches = self.batches(case.shape, case.op, case.count, ROUND_BYTES);
        let (mut ratios, mut costs) = (Vec::new(), Vec::new());
        self.rounds(path, &batches, case.depth, |round| {
            ratios.push(round.memcpy.as_secs_f64() / round.device.as_secs_f64());
            costs.push(round.memcpy_cost.as_secs_f64() / round.device_cost.as_secs_f64());
        });
        Figure::new(name, "ratio", goal, ratios).with_cost(costs)
    }

    /// Time of the whole path beyond memcpy's, for each page.
    fn overhead(&mut self, path: &mut Path) -> Figure {
        let batches = self.batches(Shape::PageList, Op::ToDevice, 512, ROUND_BYTES);
        let pages = (batches.len() * 512) as f64;
        let (mut beyond, mut costs) = (Vec::new(), Vec::new());
        let by_page = |more: Duration, less: Duration| {
            (more.as_secs_f64() - less.as_secs_f64()) * 1e9 / pages
        };
        self.rounds(path, &batches, 2, |round| {
            beyond.push(by_page(round.device, round.memcpy));
            costs.push(by_page(round.device_cost, round.memcpy_cost));
        });
        Figure::new(BEYOND, "ns", Some(OVERHEAD_GOAL_NS), beyond).with_cost(costs)
    }

    /// Time of an entry that copies almost nothing.
    fn words(&mut self, path: &mut Path) -> Figure {
        let batches = self.batches(Shape::Words, Op::ToDevice, 512, 512 * 8 * 64);
        let entries = (batches.len() * 512) as f64;
        let (mut times, mut costs) = (Vec::new(), Vec::new());
        self.rounds(path, &batches, 2, |round| {
            times.push(round.device.as_secs_f64() * 1e9 / entries);
            costs.push(round.device_cost.as_secs_f64() * 1e9 / entries);
        });
        Figure::new(WORDS, "ns", Some(OVERHEAD_GOAL_NS), times).with_cost(costs)
    }

    /// Two bulk queues by one. The front end takes a processor of its own.
    fn queues(&mut self, processors: usize) -> Figure {
        if processors < 3 {
            return Figure::absent(
                QUEUES,
                "ratio",
                QUEUES_GOAL,
                format!("two workers and a front end need 3 processors, there are {processors}"),
            );
        }
        let mut path = Path::start(self.footprint, 2, &["--poll-us", "200"]);
        let batches = self.batches(Shape::PageList, Op::ToDevice, 512, 2 * ROUND_BYTES);
        let prepared = path.prepare(&batches);
        path.run(&prepared, 2, 2);
        let started = Instant::now();
        let mut ratios = Vec::new();
        while ratios.len() < 3 || started.elapsed() < self.time {
            let one = path.run(&prepared, 2, 1).as_secs_f64();
            let two = path.run(&prepared, 2, 2).as_secs_f64();
            ratios.push(one / two);
        }
        Figure::new(QUEUES, "ratio", Some(QUEUES_GOAL), ratios)
    }
}
