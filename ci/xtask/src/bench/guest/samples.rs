// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What was measured, and how it is measured: one after the other, so that what is compared saw the same machine.

use std::collections::{BTreeMap, BTreeSet};

use hmm_control::bench::{Measure, Request, Sample, Side};
use hmm_figures::load_average;
use hmm_vm::Progress;

use super::conversation::Conversation;
use super::memcpy::Memcpy;
use super::plan::{Series, Wanted};

/// All measurements of one guest.
#[derive(Default)]
pub(super) struct Samples(BTreeMap<Series, OfSeries>);

/// All measurements of one series. Those of a round have the same index everywhere.
#[derive(Default)]
pub(super) struct OfSeries {
    pub(super) sides: BTreeMap<Side, Vec<Sample>>,
    /// Bytes a second.
    pub(super) memcpy: Vec<f64>,
    /// The host's load when the series began, and when it ended.
    pub(super) load: [Option<f64>; 2],
}

impl Samples {
    /// Measures what the figures need, with so many rounds that count.
    pub(super) fn take(
        wanted: &[Wanted],
        rounds: usize,
        guest: &mut Conversation,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let mut samples = Self::default();
        let series: BTreeSet<Series> = wanted
            .iter()
            .flat_map(|wanted| wanted.what.series())
            .collect();
        let mut huge = None;
        guest.order(&Request::LoadTestHmm)?;
        for series in series {
            if huge != Some(series.huge) {
                huge = Some(series.huge);
                guest.order(&Request::LoadDriver {
                    parameters: format!("huge_pages={}", u8::from(series.huge)),
                })?;
            }
            let of_it = || {
                wanted
                    .iter()
                    .filter(|wanted| wanted.what.series().contains(&series))
                    .map(|wanted| &wanted.what)
            };
            let mut sides = BTreeSet::from([Side::Driver]);
            sides.extend(of_it().filter_map(|what| what.baseline()));
            let memcpy = of_it().any(|what| what.wants_memcpy()).then(Memcpy::new);
            let step = progress.step(&format!("{} rounds of {series}", rounds), None);
            let result = OfSeries::take(series, &sides, memcpy, rounds, guest, |round| {
                step.detail(&format!("round {round}"));
            })?;
            step.finish("measured");
            samples.0.insert(series, result);
        }
        Ok(samples)
    }

    /// The measurements of a series; `None` if there are none.
    pub(super) fn of(&self, series: &Series) -> Option<&OfSeries> {
        self.0.get(series)
    }
}

impl FromIterator<(Series, OfSeries)> for Samples {
    fn from_iter<T: IntoIterator<Item = (Series, OfSeries)>>(taken: T) -> Self {
        Self(taken.into_iter().collect())
    }
}

impl OfSeries {
    fn take(
        series: Series,
        sides: &BTreeSet<Side>,
        mut memcpy: Option<Memcpy>,
        rounds: usize,
        guest: &mut Conversation,
        mut tell: impl FnMut(usize),
    ) -> anyhow::Result<Self> {
        let mut result = Self::default();
        // The first round warms up allocators, caches and the host's memory, and does not count.
        for round in 0..=rounds {
            tell(round);
            if round == 1 {
                result.load[0] = load_average();
            }
            for &side in sides {
                let sample = guest.measure(Measure {
                    side,
                    pages: series.pages,
                    bytes: series.bytes,
                    back: series.back,
                })?;
                if round > 0 {
                    result.sides.entry(side).or_default().push(sample);
                }
            }
            if let Some(memcpy) = &mut memcpy {
                let speed = memcpy.speed();
                if round > 0 {
                    result.memcpy.push(speed);
                }
            }
        }
        result.load[1] = load_average();
        Ok(result)
    }
}
