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
    /// Measures what the figures need, with so many rounds that count. Calls that move less than `bytes` are repeated
    /// until they have moved that much, if they are compared with those that move more.
    pub(super) fn take(
        wanted: &[Wanted],
        rounds: usize,
        bytes: u64,
        guest: &mut Conversation,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let mut samples = Self::default();
        let mut huge = None;
        guest.order(&Request::LoadTestHmm)?;
        for group in groups(wanted) {
            let first = group[0];
            if huge != Some(first.huge) {
                huge = Some(first.huge);
                guest.order(&Request::LoadDriver {
                    parameters: format!("huge_pages={}", u8::from(first.huge)),
                })?;
            }
            let sizes: Vec<String> = (group.iter())
                .map(|series| (series.bytes >> 20).to_string())
                .collect();
            let title = format!(
                "{rounds} rounds of {} MiB of {}",
                sizes.join(", "),
                first.kind()
            );
            let step = progress.step(&title, None);
            let mut takers: Vec<Taker> = (group.iter())
                .map(|series| Taker::new(*series, wanted, group.len() > 1, bytes))
                .collect();
            // The first round warms up allocators, caches and the host's memory, and does not count.
            for round in 0..=rounds {
                step.detail(&format!("round {round}"));
                for taker in &mut takers {
                    taker.round(round > 0, guest)?;
                }
            }
            step.finish("measured");
            let taken = takers.into_iter().map(|taker| (taker.series, taker.result));
            samples.0.extend(taken);
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

/// What has to be measured, in groups: what a figure compares is measured in turn, so that it sees the same machine.
fn groups(wanted: &[Wanted]) -> Vec<Vec<Series>> {
    let series: BTreeSet<Series> = wanted
        .iter()
        .flat_map(|wanted| wanted.what.series())
        .collect();
    let are_compared = |one: &Series, other: &Series| {
        wanted.iter().any(|wanted| {
            let series = wanted.what.series();
            series.contains(one) && series.contains(other)
        })
    };
    let mut groups: Vec<Vec<Series>> = Vec::new();
    for series in series {
        match (groups.iter_mut()).find(|group| are_compared(&group[0], &series)) {
            Some(group) => group.push(series),
            None => groups.push(vec![series]),
        }
    }
    groups
}

/// What takes the measurements of one series.
struct Taker {
    series: Series,
    sides: BTreeSet<Side>,
    memcpy: Option<Memcpy>,
    /// Measurements that are taken together.
    times: u64,
    result: OfSeries,
}

impl Taker {
    fn new(series: Series, wanted: &[Wanted], is_compared: bool, bytes: u64) -> Self {
        let of_it = || {
            wanted
                .iter()
                .filter(|wanted| wanted.what.series().contains(&series))
                .map(|wanted| &wanted.what)
        };
        let mut sides = BTreeSet::from([Side::Driver]);
        sides.extend(of_it().filter_map(|what| what.baseline()));
        Self {
            series,
            sides,
            memcpy: of_it().any(|what| what.wants_memcpy()).then(Memcpy::new),
            times: if is_compared {
                (bytes / series.bytes).max(1)
            } else {
                1
            },
            result: OfSeries::default(),
        }
    }

    fn round(&mut self, counts: bool, guest: &mut Conversation) -> anyhow::Result<()> {
        let Series {
            pages, bytes, back, ..
        } = self.series;
        if counts && self.result.load[0].is_none() {
            self.result.load[0] = load_average();
        }
        for &side in &self.sides {
            let mut samples = Vec::new();
            for _ in 0..self.times {
                samples.push(guest.measure(Measure {
                    side,
                    pages,
                    bytes,
                    back,
                })?);
            }
            if counts {
                let of_side = self.result.sides.entry(side).or_default();
                of_side.push(mean(samples));
            }
        }
        if let Some(memcpy) = &mut self.memcpy {
            let speed = memcpy.speed();
            if counts {
                self.result.memcpy.push(speed);
            }
        }
        self.result.load[1] = load_average();
        Ok(())
    }
}

/// Several measurements as one, which must be one at least.
fn mean(samples: Vec<Sample>) -> Sample {
    let count = samples.len() as u64;
    let of = |value: fn(&Sample) -> u64| samples.iter().map(value).sum::<u64>() / count;
    Sample {
        to_device_ns: of(|sample| sample.to_device_ns),
        read_back_ns: of(|sample| sample.read_back_ns),
        back_ns: of(|sample| sample.back_ns),
        doorbells: [
            of(|sample| sample.doorbells[0]),
            of(|sample| sample.doorbells[1]),
        ],
        cpu_faults: of(|sample| sample.cpu_faults),
        touches_ns: samples
            .iter()
            .flat_map(|sample| sample.touches_ns.iter().copied())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Tuning, figures};
    use super::*;

    #[test]
    fn what_is_compared_is_measured_in_turn() {
        let wanted = figures(Tuning::Tuned, 256 << 20, 1 << 30);
        let groups = groups(&wanted);
        let sizes: Vec<Vec<u64>> = (groups.iter())
            .filter(|group| group.len() > 1)
            .map(|group| group.iter().map(|series| series.bytes >> 20).collect())
            .collect();
        assert_eq!(sizes, [[16, 64, 256, 1024], [16, 64, 256, 1024]]);
        let mut seen = BTreeSet::new();
        for series in groups.iter().flatten() {
            assert!(seen.insert(*series), "{} twice", series.kind());
        }
        let all = wanted.iter().flat_map(|wanted| wanted.what.series());
        assert_eq!(seen, all.collect());
        // The driver is loaded anew once.
        assert!(groups.is_sorted_by_key(|group| group[0].huge));
        assert!(groups.iter().all(|group| {
            let huge = group[0].huge;
            group.iter().all(|series| series.huge == huge)
        }));
    }

    #[test]
    fn several_measurements_become_one() {
        let one = |value: u64| Sample {
            to_device_ns: value,
            read_back_ns: 2 * value,
            back_ns: 3 * value,
            touches_ns: vec![value],
            doorbells: [4 * value, 5 * value],
            cpu_faults: 6 * value,
        };
        let expected = Sample {
            touches_ns: vec![1, 3],
            ..one(2)
        };
        assert_eq!(mean(vec![one(1), one(3)]), expected);
    }
}
