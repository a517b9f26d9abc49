// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device does with memory: its page faults, what they cost the process, and a list.

use anyhow::Context;
use hmm_control::bench::{FAULT_STAGES, JobSample, PREFETCHES, Request};
use hmm_figures::{Goal, Spread, load_average};
use hmm_vm::Progress;

use super::conversation::Conversation;
use super::figure::{Circumstances, Figure};
use super::raw::Raw;

/// Memory that is used at most.
pub(super) const BYTES: u64 = 256 << 20;
/// The copy's share of a device fault that moves 2 MiB. The driver xe publishes this figure for itself.
const COPY_SHARE: f64 = 0.8;
/// The rate of prefetches by that of the device's own copies. The driver xe publishes this figure for itself.
const PREFETCH_RATE: f64 = 0.77;
/// What a context may make `munmap()` take, by what it takes without one.
const UNMAP_RATIO: f64 = 1.5;

/// Measurements of all rounds.
pub(super) struct JobSamples {
    rounds: Vec<JobSample>,
    load: [Option<f64>; 2],
}

/// Two numbers of one round: what is measured, and what it is compared with.
type Pair = (f64, f64);

impl JobSamples {
    /// Measures so many rounds, and one before that which does not count.
    pub(super) fn take(
        rounds: usize,
        conversation: &mut Conversation,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let step = progress.step("measure jobs", Some(rounds as u64));
        conversation.order(&Request::LoadDriver {
            parameters: "huge_pages=1".to_owned(),
        })?;
        conversation.measure_jobs()?;
        let begin = load_average();
        let mut samples = Vec::new();
        for _ in 0..rounds {
            samples.push(conversation.measure_jobs()?);
        }
        step.finish(&format!("{rounds} rounds"));
        Ok(Self {
            rounds: samples,
            load: [begin, load_average()],
        })
    }

    /// All figures whose names are wanted.
    pub(super) fn figures(
        &self,
        is_wanted: impl Fn(&str) -> bool,
        guest: &Circumstances,
    ) -> anyhow::Result<Vec<Figure>> {
        let mut figures = Vec::new();
        for name in NAMES.into_iter().filter(|name| is_wanted(name)) {
            let (raw, goal) = self
                .raw(name)
                .with_context(|| format!("no measurements for '{name}'"))?;
            let figure = Figure::of(name, goal, raw, self.load, guest);
            figures.push(figure.with_context(|| format!("no numbers for '{name}'"))?);
        }
        Ok(figures)
    }

    fn raw(&self, name: &str) -> Option<(Raw, Option<Goal>)> {
        let at = |part: f64| move |times: &Vec<u64>| microseconds(times, part);
        Some(match name {
            "device fault of a page, p50" => {
                (self.alone("us", |round| at(0.5)(&round.fault_ns))?, None)
            }
            "device fault of a page, p99" => {
                (self.alone("us", |round| at(0.99)(&round.fault_ns))?, None)
            }
            "a job of 8 bytes without a fault, p50" => {
                (self.alone("us", |round| at(0.5)(&round.resident_ns))?, None)
            }
            "device fault that moves 2 MiB, p50" => (
                self.alone("us", |round| at(0.5)(&round.huge_fault_ns))?,
                None,
            ),
            "device fault that moves 2 MiB, copy's share" => (
                self.alone("share", |round| {
                    let all = at(0.5)(&round.huge_fault_ns)?;
                    Some(1.0 - at(0.5)(&round.huge_fault_no_copy_ns)? / all)
                })?,
                Some(Goal::AtLeast(COPY_SHARE)),
            ),
            "mprotect of a page that the device has, p50" => (self.protect(0.5)?, None),
            "mprotect of a page that the device has, p99" => (self.protect(0.99)?, None),
            "munmap of 64 MiB that the device has" => (
                self.beside("ms", "no context", |round| {
                    Some((
                        round.unmap_ns[0] as f64 / 1e6,
                        round.unmap_ns[1] as f64 / 1e6,
                    ))
                })?,
                Some(Goal::AtMost(UNMAP_RATIO)),
            ),
            "walk of a list by the device" => (
                self.beside("ns/node", "the guest's CPU", |round| {
                    let nodes = round.nodes as f64;
                    Some((
                        round.walk_ns[0] as f64 / nodes,
                        round.walk_ns[1] as f64 / nodes,
                    ))
                })?,
                None,
            ),
            "program: a step of a loop" => (
                self.beside("ns", "the guest's CPU", |round| {
                    let steps = round.program_steps as f64;
                    let [device, cpu] = round.program_ns;
                    Some((device as f64 / steps, cpu as f64 / steps))
                })?,
                None,
            ),
            other => return self.stage(other).or_else(|| self.prefetch(other)),
        })
    }

    /// What a stage takes of a device fault that moves 2 MiB.
    fn stage(&self, name: &str) -> Option<(Raw, Option<Goal>)> {
        let stage = name.strip_prefix("device fault that moves 2 MiB, mean of ")?;
        let index = FAULT_STAGES.iter().position(|other| *other == stage)?;
        let mean = |round: &JobSample| Some(round.huge_fault_stages_ns[index] as f64 / 1e3);
        Some((self.alone("us", mean)?, None))
    }

    /// Prefetches of a size.
    fn prefetch(&self, name: &str) -> Option<(Raw, Option<Goal>)> {
        let (size, part) = name
            .strip_prefix("prefetch of 64 MiB by ")?
            .split_once(", ")?;
        let index = PREFETCHES
            .iter()
            .position(|bytes| size == format!("{} MiB", bytes >> 20))?;
        Some(match part {
            "first touch" => (
                self.alone("ms", |round| {
                    Some(round.prefetches[index].first_touch_ns as f64 / 1e6)
                })?,
                None,
            ),
            "all" => (
                self.alone("ms", |round| {
                    Some(round.prefetches[index].total_ns as f64 / 1e6)
                })?,
                None,
            ),
            "share of the device's own rate" => {
                let share = |round: &JobSample| {
                    Some(round.engine_ns as f64 / round.prefetches[index].total_ns as f64)
                };
                // One request tells the driver everything that there is to do.
                let is_one = index + 1 == PREFETCHES.len();
                let goal = is_one.then_some(Goal::AtLeast(PREFETCH_RATE));
                (self.alone("share", share)?, goal)
            }
            _ => return None,
        })
    }

    fn protect(&self, part: f64) -> Option<Raw> {
        self.beside("us", "a page that it has not", |round| {
            let [mapped, other] = &round.protect_ns;
            Some((microseconds(mapped, part)?, microseconds(other, part)?))
        })
    }

    /// A number of each round.
    fn alone(&self, unit: &'static str, value: impl Fn(&JobSample) -> Option<f64>) -> Option<Raw> {
        let values = self.rounds.iter().map(value).collect::<Option<Vec<_>>>()?;
        Some(Raw {
            unit,
            samples: values.len(),
            values,
            baseline: None,
        })
    }

    /// Two numbers of each round, and their ratio.
    fn beside(
        &self,
        unit: &'static str,
        baseline: &'static str,
        pair: impl Fn(&JobSample) -> Option<Pair>,
    ) -> Option<Raw> {
        let pairs = self.rounds.iter().map(pair).collect::<Option<Vec<_>>>()?;
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs);
        let ratios = ratios.collect();
        Some(Raw {
            unit,
            samples: ours.len(),
            values: ours,
            baseline: Some((baseline, theirs, ratios)),
        })
    }
}

/// Every figure, in the order of the report.
pub(super) const NAMES: [&str; 26] = [
    "device fault of a page, p50",
    "device fault of a page, p99",
    "a job of 8 bytes without a fault, p50",
    "device fault that moves 2 MiB, p50",
    "device fault that moves 2 MiB, copy's share",
    "mprotect of a page that the device has, p50",
    "mprotect of a page that the device has, p99",
    "munmap of 64 MiB that the device has",
    "walk of a list by the device",
    "program: a step of a loop",
    "device fault that moves 2 MiB, mean of setup",
    "device fault that moves 2 MiB, mean of destinations",
    "device fault that moves 2 MiB, mean of submit",
    "device fault that moves 2 MiB, mean of wait",
    "device fault that moves 2 MiB, mean of pages",
    "device fault that moves 2 MiB, mean of finalize",
    "device fault that moves 2 MiB, mean of device_fault",
    "prefetch of 64 MiB by 2 MiB, first touch",
    "prefetch of 64 MiB by 8 MiB, first touch",
    "prefetch of 64 MiB by 64 MiB, first touch",
    "prefetch of 64 MiB by 2 MiB, all",
    "prefetch of 64 MiB by 8 MiB, all",
    "prefetch of 64 MiB by 64 MiB, all",
    "prefetch of 64 MiB by 2 MiB, share of the device's own rate",
    "prefetch of 64 MiB by 8 MiB, share of the device's own rate",
    "prefetch of 64 MiB by 64 MiB, share of the device's own rate",
];

/// What this part of the times does not exceed.
fn microseconds(times: &[u64], part: f64) -> Option<f64> {
    let times = times.iter().map(|time| *time as f64 / 1e3).collect();
    Some(Spread::new(times)?.at(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmm_control::bench::PrefetchSample;

    fn samples() -> JobSamples {
        let round = JobSample {
            fault_ns: vec![3000, 1000, 2000],
            resident_ns: vec![10],
            huge_fault_ns: vec![1000, 1000],
            huge_fault_no_copy_ns: vec![150, 150],
            protect_ns: [vec![40], vec![10]],
            unmapped_bytes: 64 << 20,
            unmap_ns: [8_000_000, 4_000_000],
            nodes: 10,
            walk_ns: [100, 200],
            huge_fault_stages_ns: [100, 10, 10, 500, 20, 60, 900],
            program_steps: 10,
            program_ns: [500, 20],
            prefetches: [PrefetchSample {
                first_touch_ns: 2_000_000,
                total_ns: 10_000_000,
            }; PREFETCHES.len()],
            engine_ns: 8_000_000,
        };
        JobSamples {
            rounds: vec![round.clone(), round],
            load: [None, None],
        }
    }

    #[test]
    fn every_name_has_a_figure() {
        let guest = Circumstances {
            command_line: "none".to_owned(),
            kernel: "7".to_owned(),
            accelerator: "tcg".to_owned(),
        };
        let figures = samples().figures(|_| true, &guest).unwrap();
        assert_eq!(figures.len(), NAMES.len());
        let text: Vec<_> = figures.iter().map(ToString::to_string).collect();
        assert!(text[0].contains("2.000 us"), "{}", text[0]);
        // 850 of 1000 are the copy.
        assert!(text[4].contains("0.850 share"), "{}", text[4]);
        assert!(
            text[5].contains("4.00 of a page that it has not"),
            "{}",
            text[5]
        );
        // Twice as long as without a context.
        assert!(figures[7].is_missed() && !figures[4].is_missed());
        assert!(text[8].contains("0.50 of the guest's CPU"), "{}", text[8]);
        assert!(text[9].contains("50.000 ns"), "{}", text[9]);
        // Stages and sizes are told apart by their names.
        assert!(text[13].contains("0.500 us"), "{}", text[13]);
        assert!(
            text[25].contains("0.800 share") && !figures[25].is_missed(),
            "{}",
            text[25]
        );
    }

    #[test]
    fn rounds_without_a_fault_give_no_figure() {
        let mut samples = samples();
        samples.rounds[0].fault_ns.clear();
        assert!(samples.raw(NAMES[0]).is_none());
        assert!(samples.raw(NAMES[2]).is_some());
    }
}
