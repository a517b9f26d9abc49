// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All figures, and their goals.

use hmm_control::bench::{Pages, Return};
use hmm_figures::Goal;

use super::{Against, Part, Series, Tuning, Wanted, What};

/// Sizes over which a MiB should cost the same.
const SIZES: [u64; 5] = [16 << 20, 64 << 20, 256 << 20, 1 << 30, 4 << 30];
/// Pages that are touched in one measurement.
const TOUCHES: usize = 400;
const DOORBELLS_A_MIB: f64 = 0.125;
const FLATNESS: f64 = 1.2;
const TOUCH_RATIO: f64 = 2.0;

/// Every figure, in the order of the report.
pub(in super::super) fn figures(tuning: Tuning, bytes: u64, largest: u64) -> Vec<Wanted> {
    let mut plan = Plan {
        tuning,
        bytes,
        wanted: Vec::new(),
    };
    plan.huge_pages(true);
    plan.huge_pages(false);
    plan.single_pages();
    if tuning == Tuning::Tuned {
        plan.sizes(largest);
    }
    plan.wanted
}

struct Plan {
    tuning: Tuning,
    bytes: u64,
    wanted: Vec<Wanted>,
}

impl Plan {
    fn series(&self, huge: bool, pages: Pages, back: Return) -> Series {
        Series {
            huge,
            pages,
            bytes: self.bytes,
            back,
        }
    }

    /// The goal of this command line.
    fn goal(&self, tuned: f64, default: f64) -> Option<Goal> {
        Some(Goal::AtLeast(match self.tuning {
            Tuning::Tuned => tuned,
            Tuning::Default => default,
        }))
    }

    fn speed(
        &mut self,
        name: String,
        series: Series,
        part: Part,
        against: Against,
        goal: Option<Goal>,
    ) {
        self.wanted.push(Wanted {
            name,
            what: What::Speed {
                series,
                part,
                against,
            },
            goal,
        });
    }

    /// Goals are for huge pages that stay huge. How far those fall behind that are split on their way is shown.
    fn huge_pages(&mut self, huge: bool) {
        let named = |what: &str| {
            let parameter = if huge { "huge_pages=1" } else { "huge_pages=0" };
            format!("{what}, THP, {parameter}")
        };
        let goal = |goal: Option<Goal>| goal.filter(|_| huge);
        let migrate = self.series(huge, Pages::Thp, Return::Migrate);
        let read = self.series(huge, Pages::Thp, Return::Read);
        let memcpy = match self.tuning {
            Tuning::Tuned => Some(Goal::AtLeast(0.35)),
            Tuning::Default => None,
        };
        for (what, series, part, against, aim) in [
            (
                "to_system",
                migrate,
                Part::Back,
                Against::TestHmm,
                self.goal(4.0, 1.3),
            ),
            ("to_system", migrate, Part::Back, Against::Memcpy, memcpy),
            (
                "to_device",
                migrate,
                Part::ToDevice,
                Against::TestHmm,
                self.goal(10.0, 10.0),
            ),
            (
                "to_device",
                migrate,
                Part::ToDevice,
                Against::TestHmmLessReadBack,
                self.goal(4.0, 4.0),
            ),
            (
                "to_device",
                migrate,
                Part::ToDevice,
                Against::Memcpy,
                memcpy,
            ),
            (
                "read by a CPU",
                read,
                Part::Back,
                Against::TestHmm,
                self.goal(3.0, 1.2),
            ),
        ] {
            self.speed(named(what), series, part, against, goal(aim));
        }
    }

    fn single_pages(&mut self) {
        let named = |what: &str| format!("{what}, 4 KiB");
        let migrate = self.series(false, Pages::Single, Return::Migrate);
        let read = self.series(false, Pages::Single, Return::Read);
        let touch = self.series(false, Pages::Single, Return::Touch { count: TOUCHES });
        let aim = self.goal(1.3, 1.2);
        let bound = match self.tuning {
            Tuning::Tuned => Some(Goal::AtLeast(0.85)),
            Tuning::Default => None,
        };
        for (what, part) in [("to_system", Part::Back), ("to_device", Part::ToDevice)] {
            self.speed(named(what), migrate, part, Against::TestHmm, aim);
            if part == Part::ToDevice {
                let against = Against::TestHmmLessReadBack;
                self.speed(named(what), migrate, part, against, None);
            }
            self.speed(named(what), migrate, part, Against::NoCopy, bound);
        }
        self.speed(
            named("read by a CPU"),
            read,
            Part::Back,
            Against::TestHmm,
            self.goal(3.0, 2.0),
        );
        self.wanted.push(Wanted {
            name: named("one CPU fault, p50"),
            what: What::Touch { series: touch },
            goal: Some(Goal::AtMost(TOUCH_RATIO)),
        });
    }

    fn sizes(&mut self, largest: u64) {
        for (pages, huge, kind) in [
            (Pages::Thp, true, "THP, huge_pages=1"),
            (Pages::Single, false, "4 KiB"),
        ] {
            let sizes: Vec<Series> = SIZES
                .iter()
                .filter(|bytes| **bytes <= largest)
                .map(|bytes| Series {
                    bytes: *bytes,
                    ..self.series(huge, pages, Return::Migrate)
                })
                .collect();
            for (direction, part) in [("to_device", Part::ToDevice), ("to_system", Part::Back)] {
                for series in &sizes {
                    self.wanted.push(Wanted {
                        name: format!("{direction}, {kind}, {} MiB", series.bytes >> 20),
                        what: What::Cost {
                            series: *series,
                            part,
                        },
                        goal: None,
                    });
                }
                self.wanted.push(Wanted {
                    name: format!("{direction}, {kind}, dearest MiB by cheapest"),
                    what: What::Flatness {
                        sizes: sizes.clone(),
                        part,
                    },
                    goal: Some(Goal::AtMost(FLATNESS)),
                });
                if let Some(series) = sizes.last() {
                    self.wanted.push(Wanted {
                        name: format!("{direction}, {kind}, {} MiB, doorbells", series.bytes >> 20),
                        what: What::Doorbells {
                            series: *series,
                            part,
                        },
                        goal: Some(Goal::AtMost(DOORBELLS_A_MIB)),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all(tuning: Tuning) -> Vec<Wanted> {
        figures(tuning, 256 << 20, 4 << 30)
    }

    #[test]
    fn a_name_and_its_baseline_are_there_once() {
        for tuning in Tuning::ALL {
            let mut seen = BTreeSet::new();
            for wanted in all(tuning) {
                let against = match wanted.what {
                    What::Speed { against, .. } => against.name(),
                    _ => "",
                };
                assert!(
                    seen.insert((wanted.name.clone(), against)),
                    "{} beside {against} is there twice",
                    wanted.name
                );
            }
        }
    }

    #[test]
    fn sizes_go_as_far_as_they_are_asked_to() {
        let largest = |bytes| {
            figures(Tuning::Tuned, 2 << 20, bytes)
                .iter()
                .flat_map(|wanted| wanted.what.series())
                .map(|series| series.bytes)
                .max()
        };
        assert_eq!(largest(4 << 30), Some(4 << 30));
        assert_eq!(largest(300 << 20), Some(256 << 20));
    }

    #[test]
    fn pages_that_are_split_have_no_goal() {
        for tuning in Tuning::ALL {
            for wanted in all(tuning) {
                let split = wanted.name.ends_with("huge_pages=0");
                assert!(!split || wanted.goal.is_none(), "{}", wanted.name);
            }
        }
    }
}
