// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From measurements to numbers.

use hmm_control::bench::{Sample, Side};
use hmm_figures::Spread;

use super::plan::{Against, Part, Series, What};
use super::samples::{OfSeries, Samples};

/// A figure before anything is said about it.
pub(super) struct Raw {
    pub(super) unit: &'static str,
    pub(super) values: Vec<f64>,
    pub(super) baseline: Option<Compared>,
    pub(super) samples: usize,
}

/// What a figure is compared with: name, values, and the ratio in each round.
pub(super) type Compared = (&'static str, Vec<f64>, Vec<f64>);

impl Raw {
    /// The numbers of a figure; `None` if what it needs was not measured.
    pub(super) fn new(what: &What, samples: &Samples) -> Option<Self> {
        match what {
            What::Speed {
                series,
                part,
                against,
            } => speed(series, *part, *against, samples.of(series)?),
            What::Touch { series } => touch(samples.of(series)?),
            What::Doorbells { series, part } => {
                let mib = mebibytes(series);
                let index = usize::from(*part == Part::Back);
                let of_driver = samples.of(series)?.sides.get(&Side::Driver)?;
                Some(Raw::plain(
                    "doorbells/MiB",
                    of_driver
                        .iter()
                        .map(|sample| sample.doorbells[index] as f64 / mib)
                        .collect(),
                ))
            }
            What::Cost { series, part } => Some(Raw::plain(
                "ms/MiB",
                costs(series, *part, samples.of(series)?)?,
            )),
            What::Flatness { sizes, part } => {
                let mut medians = Vec::new();
                for series in sizes {
                    medians.push(Spread::new(costs(series, *part, samples.of(series)?)?)?.median());
                }
                let medians = Spread::new(medians)?;
                Some(Raw::plain("ratio", vec![medians.max() / medians.min()]))
            }
        }
    }

    fn plain(unit: &'static str, values: Vec<f64>) -> Self {
        Self {
            unit,
            samples: values.len(),
            values,
            baseline: None,
        }
    }
}

fn speed(series: &Series, part: Part, against: Against, taken: &OfSeries) -> Option<Raw> {
    // Bytes a nanosecond are GB/s.
    let speed = |time: f64| series.bytes as f64 / time;
    let times = |side: Side| -> Option<Vec<f64>> {
        let samples = taken.sides.get(&side)?.iter();
        Some(
            samples
                .map(|sample| nanoseconds(sample, part) as f64)
                .collect(),
        )
    };
    let ours: Vec<f64> = times(Side::Driver)?.into_iter().map(speed).collect();
    let theirs: Vec<f64> = match against {
        Against::TestHmm => times(Side::TestHmm)?.into_iter().map(speed).collect(),
        Against::NoCopy => times(Side::NoCopy)?.into_iter().map(speed).collect(),
        Against::TestHmmLessReadBack => {
            // The read-back inside was not the one that was timed: the usual one is taken off. On a machine with much
            // else to do that may leave nothing, and such a round has no speed.
            let samples = taken.sides.get(&Side::TestHmm)?.iter();
            let read_back =
                Spread::new(samples.map(|sample| sample.read_back_ns as f64).collect())?;
            times(Side::TestHmm)?
                .into_iter()
                .map(|time| time - read_back.median())
                .map(|time| if time > 0.0 { speed(time) } else { f64::NAN })
                .collect()
        }
        Against::Memcpy => taken.memcpy.iter().map(|speed| speed / 1e9).collect(),
    };
    let pairs = ours
        .iter()
        .zip(&theirs)
        .filter(|(_, theirs)| theirs.is_finite());
    let (values, ratios) = pairs.map(|(ours, theirs)| (*theirs, ours / theirs)).unzip();
    Some(Raw {
        unit: "GB/s",
        samples: ours.len(),
        baseline: Some((against.name(), values, ratios)),
        values: ours,
    })
}

/// Each round gives its median.
fn touch(taken: &OfSeries) -> Option<Raw> {
    let medians = |side: Side| -> Option<Vec<f64>> {
        taken
            .sides
            .get(&side)?
            .iter()
            .map(|sample| {
                let times = sample.touches_ns.iter().map(|time| *time as f64 / 1e3);
                Some(Spread::new(times.collect())?.median())
            })
            .collect()
    };
    let ours = medians(Side::Driver)?;
    let theirs = medians(Side::TestHmm)?;
    let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs);
    Some(Raw {
        unit: "us",
        samples: taken
            .sides
            .get(&Side::Driver)?
            .iter()
            .map(|sample| sample.touches_ns.len())
            .sum(),
        baseline: Some((Against::TestHmm.name(), theirs.clone(), ratios.collect())),
        values: ours,
    })
}

fn costs(series: &Series, part: Part, taken: &OfSeries) -> Option<Vec<f64>> {
    let samples = taken.sides.get(&Side::Driver)?;
    let of_one = |sample| nanoseconds(sample, part) as f64 / 1e6 / mebibytes(series);
    Some(samples.iter().map(of_one).collect())
}

fn nanoseconds(sample: &Sample, part: Part) -> u64 {
    match part {
        Part::ToDevice => sample.to_device_ns,
        Part::Back => sample.back_ns,
    }
}

fn mebibytes(series: &Series) -> f64 {
    series.bytes as f64 / f64::from(1 << 20)
}
