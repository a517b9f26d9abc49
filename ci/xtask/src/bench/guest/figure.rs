// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One figure, and how it is shown.

use std::fmt;

use hmm_figures::{Goal, Spread, Verdict};
use serde::Serialize;

use super::plan::Wanted;
use super::raw::{Compared, Raw};
use super::samples::Samples;

/// One figure. Everything here is measured; nothing is modelled.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figure {
    name: String,
    kind: &'static str,
    unit: &'static str,
    /// The median of all rounds.
    value: f64,
    min: f64,
    max: f64,
    /// Measurements that count.
    samples: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Baseline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<Verdict>,
    /// The host's load when its measurements began.
    load_begin: Option<f64>,
    /// The same when they ended.
    load_end: Option<f64>,
    #[serde(flatten)]
    guest: Circumstances,
}

/// What a figure is compared with.
#[derive(Debug, Clone, Serialize)]
struct Baseline {
    name: &'static str,
    /// In the unit of the figure.
    value: f64,
    /// The median of the ratios of all rounds: the figure by the baseline.
    ratio: f64,
    ratio_min: f64,
    ratio_max: f64,
}

/// The guest that a figure was measured in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Circumstances {
    /// What was added to the kernel's command line.
    pub(super) command_line: String,
    pub(super) kernel: String,
    pub(super) accelerator: String,
}

impl Figure {
    /// Makes a figure; `None` if what it needs was not measured.
    pub(super) fn new(wanted: &Wanted, samples: &Samples, guest: &Circumstances) -> Option<Self> {
        let raw = Raw::new(&wanted.what, samples)?;
        let loads: Vec<[Option<f64>; 2]> = wanted
            .what
            .series()
            .iter()
            .filter_map(|series| Some(samples.of(series)?.load))
            .collect();
        let load = [
            loads.first().and_then(|load| load[0]),
            loads.last().and_then(|load| load[1]),
        ];
        Self::of(&wanted.name, wanted.goal, raw, load, guest)
    }

    /// Makes a figure of its numbers; `None` if there are none.
    pub(super) fn of(
        name: &str,
        goal: Option<Goal>,
        raw: Raw,
        load: [Option<f64>; 2],
        guest: &Circumstances,
    ) -> Option<Self> {
        let spread = Spread::new(raw.values)?;
        let value = spread.median();
        let is_compared = raw.baseline.is_some();
        let baseline = raw.baseline.and_then(Baseline::new);
        let judged = if is_compared {
            baseline.as_ref().map(|baseline| baseline.ratio)
        } else {
            Some(value)
        };
        Some(Self {
            name: name.to_owned(),
            kind: "measured",
            unit: raw.unit,
            value,
            min: spread.min(),
            max: spread.max(),
            samples: raw.samples,
            baseline,
            goal,
            met: goal.map(|goal| goal.verdict(judged)),
            load_begin: load[0],
            load_end: load[1],
            guest: guest.clone(),
        })
    }

    /// The guest that it was measured in.
    pub(super) fn guest(&self) -> &Circumstances {
        &self.guest
    }

    /// Whether it has a goal and did not show that it reached it.
    pub(super) fn is_missed(&self) -> bool {
        self.met.is_some_and(|verdict| verdict != Verdict::Met)
    }
}

impl Baseline {
    /// `None` if no round has a ratio.
    fn new((name, values, ratios): Compared) -> Option<Self> {
        let ratios = Spread::new(ratios)?;
        Some(Self {
            name,
            value: Spread::new(values)?.median(),
            ratio: ratios.median(),
            ratio_min: ratios.min(),
            ratio_max: ratios.max(),
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:46} {:9.3} {:13} ({:.3} to {:.3})",
            self.name, self.value, self.unit, self.min, self.max
        )?;
        if let Some(baseline) = &self.baseline {
            write!(
                formatter,
                ", {:.2} of {} ({:.3}; {:.2} to {:.2})",
                baseline.ratio,
                baseline.name,
                baseline.value,
                baseline.ratio_min,
                baseline.ratio_max
            )?;
        }
        if let (Some(goal), Some(met)) = (self.goal, self.met) {
            write!(formatter, "  goal {goal}: {met}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hmm_control::bench::{Sample, Side};

    use super::super::plan::{Against, Series, Tuning, What, figures};
    use super::super::samples::OfSeries;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn guest() -> Circumstances {
        Circumstances {
            command_line: "none".to_owned(),
            kernel: "7".to_owned(),
            accelerator: "tcg".to_owned(),
        }
    }

    fn wanted(name: &str) -> Wanted {
        figures(Tuning::Tuned, 256 * MIB, 64 * MIB)
            .into_iter()
            .find(|wanted| wanted.name.starts_with(name))
            .expect(name)
    }

    fn sample(to_device_ns: u64, back_ns: u64) -> Sample {
        Sample {
            to_device_ns,
            back_ns,
            ..Sample::default()
        }
    }

    fn of_sides(sides: [(Side, Vec<Sample>); 2]) -> OfSeries {
        OfSeries {
            sides: sides.into(),
            ..OfSeries::default()
        }
    }

    fn figure(wanted: &Wanted, taken: impl IntoIterator<Item = (Series, OfSeries)>) -> Figure {
        Figure::new(wanted, &taken.into_iter().collect(), &guest()).unwrap()
    }

    #[test]
    fn rounds_are_compared_one_by_one() {
        let wanted = wanted("to_system, 4 KiB");
        // Of the same round each time 2, although the machine became slower and slower.
        let ours = [100, 200, 400].map(|time| sample(1, time)).to_vec();
        let theirs = [200, 400, 800].map(|time| sample(1, time)).to_vec();
        let taken = of_sides([(Side::Driver, ours), (Side::TestHmm, theirs)]);
        let figure = figure(&wanted, [(wanted.what.series()[0], taken)]);
        let baseline = figure.baseline.as_ref().unwrap();
        assert_eq!(
            (baseline.ratio_min, baseline.ratio, baseline.ratio_max),
            (2.0, 2.0, 2.0)
        );
        assert_eq!(figure.value, (256 * MIB) as f64 / 200.0);
        assert_eq!((figure.samples, figure.met), (3, Some(Verdict::Met)));
    }

    fn less_read_back() -> Wanted {
        let is_it = |wanted: &Wanted| {
            matches!(
                wanted.what,
                What::Speed {
                    against: Against::TestHmmLessReadBack,
                    ..
                }
            )
        };
        figures(Tuning::Default, 256 * MIB, 0)
            .into_iter()
            .find(is_it)
            .unwrap()
    }

    #[test]
    fn what_was_read_back_is_taken_off() {
        let wanted = less_read_back();
        let theirs = Sample {
            read_back_ns: 400,
            ..sample(1000, 1)
        };
        let taken = of_sides([
            (Side::Driver, vec![sample(200, 1)]),
            (Side::TestHmm, vec![theirs]),
        ]);
        let figure = figure(&wanted, [(wanted.what.series()[0], taken)]);
        // 600 by 200, and the goal is 4.
        assert_eq!(figure.baseline.as_ref().unwrap().ratio, 3.0);
        assert!(figure.is_missed());
    }

    #[test]
    fn a_read_back_that_took_everything_leaves_nothing_to_compare_with() {
        let wanted = less_read_back();
        let theirs = Sample {
            read_back_ns: 1000,
            ..sample(1000, 1)
        };
        let taken = of_sides([
            (Side::Driver, vec![sample(200, 1)]),
            (Side::TestHmm, vec![theirs]),
        ]);
        let figure = figure(&wanted, [(wanted.what.series()[0], taken)]);
        assert_eq!(figure.met, Some(Verdict::NotMeasured));
        assert!(figure.is_missed());
    }

    #[test]
    fn waiting_is_judged_by_how_little_it_is() {
        let wanted = wanted("one CPU fault");
        let waits = |times: [u64; 3]| {
            vec![Sample {
                touches_ns: times.to_vec(),
                ..Sample::default()
            }]
        };
        let taken = of_sides([
            (Side::Driver, waits([90_000, 50_000, 10_000])),
            (Side::TestHmm, waits([20_000, 20_000, 20_000])),
        ]);
        let figure = figure(&wanted, [(wanted.what.series()[0], taken)]);
        assert_eq!((figure.value, figure.samples), (50.0, 3));
        assert_eq!(figure.baseline.as_ref().unwrap().ratio, 2.5);
        assert!(figure.is_missed());
    }

    #[test]
    fn the_dearest_size_is_compared_with_the_cheapest() {
        let wanted = wanted("to_device, 4 KiB, dearest");
        let taken = wanted.what.series().into_iter().map(|series| {
            let time = series.bytes * if series.bytes == 16 * MIB { 3 } else { 2 };
            let ours = (Side::Driver, vec![sample(time, 1)]);
            (series, of_sides([ours, (Side::TestHmm, Vec::new())]))
        });
        let figure = figure(&wanted, taken);
        assert_eq!(figure.value, 1.5);
        assert!(figure.is_missed());
    }

    #[test]
    fn a_figure_without_measurements_is_none() {
        let wanted = wanted("to_system, 4 KiB");
        assert!(Figure::new(&wanted, &Samples::default(), &guest()).is_none());
    }
}
