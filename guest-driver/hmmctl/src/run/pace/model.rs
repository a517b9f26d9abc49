// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Simulated programs: how much they are slowed down, and how much of what rests has left.
//!
//! A program touches one page every 10 µs. What faults and moves cost is about what they cost under
//! TCG, where they are dearest: a random fault takes as long as a hundred touches.

use super::block::{BlockId, Seen};
use super::pacer::{Pacer, Target, Usage};
use super::page_set::{BLOCK_BYTES, BLOCK_PAGES, PAGE_BYTES, PageSet};
use super::planner::{Move, Side};
use crate::cli::Policy;
use std::convert::Infallible;
use std::time::Duration;

const TOUCH: Duration = Duration::from_micros(10);
const FAULT: Duration = Duration::from_millis(1);
const CALL: Duration = Duration::from_millis(3);
const MOVE_PAGE: Duration = Duration::from_micros(8);
const LOOK_PAGE: Duration = Duration::from_nanos(300);
const INTERVAL: Duration = Duration::from_millis(100);
/// A page that was not touched for so long rests.
const REST: Duration = Duration::from_secs(4);

/// What a program does: how many touches, and the page of each.
struct Behaviour {
    name: &'static str,
    touches: u64,
    /// The page that the touch with this number is of, with a random number to choose by.
    page: fn(touch: u64, random: u64) -> u64,
}

#[derive(Clone, Copy, Default)]
struct Page {
    is_away: bool,
    /// The number of the last touch, counted from 1; 0: the page does not exist.
    touched: u64,
}

struct Simulated<'a> {
    behaviour: &'a Behaviour,
    now: Duration,
    /// Time that the program may still use.
    time: Duration,
    stall_left: Duration,
    stall: Duration,
    touch: u64,
    random: u64,
    pages: Vec<Page>,
    /// The page after the last fault's, and the pages that the next may take along.
    next_page: u64,
    fault_window: u64,
    ended: Option<Duration>,
}

struct Outcome {
    /// Time by the time that the program takes alone.
    slowdown: f64,
    /// Part of the pages at rest that is away; `None`: no page rests.
    resting_away: Option<f64>,
}

impl<'a> Simulated<'a> {
    fn new(behaviour: &'a Behaviour) -> Self {
        Self {
            behaviour,
            now: Duration::ZERO,
            time: Duration::ZERO,
            stall_left: Duration::ZERO,
            stall: Duration::ZERO,
            touch: 0,
            random: 88_172_645_463_325_252,
            pages: Vec::new(),
            next_page: u64::MAX,
            fault_window: 1,
            ended: None,
        }
    }

    /// Lets time go by, of which the program gets one part in `parts`.
    fn advance(&mut self, time: Duration, parts: u32) {
        self.now += time;
        self.time += time / parts;
        while self.ended.is_none() {
            if !self.stall_left.is_zero() {
                let part = self.stall_left.min(self.time);
                self.stall_left -= part;
                self.stall += part;
                self.time -= part;
                if !self.stall_left.is_zero() {
                    return;
                }
            }
            if self.time < TOUCH {
                return;
            }
            self.time -= TOUCH;
            self.touch_one();
            if self.touch == self.behaviour.touches {
                self.ended = Some(self.now.saturating_sub(self.time * parts));
            }
        }
    }

    fn touch_one(&mut self) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let page = (self.behaviour.page)(self.touch, self.random >> 11);
        self.touch += 1;
        let index = page as usize;
        if self.pages.len() <= index {
            self.pages.resize(index + 1, Page::default());
        }
        self.pages[index].touched = self.touch;
        if !self.pages[index].is_away {
            return;
        }
        // As the driver does it: a fault that follows the last one takes more along.
        self.fault_window = if page == self.next_page {
            (self.fault_window * 2).clamp(16, 512)
        } else {
            1
        };
        let last = (page + self.fault_window).min(self.pages.len() as u64);
        for page in &mut self.pages[index..last as usize] {
            page.is_away = false;
        }
        self.next_page = last;
        self.stall_left = FAULT + MOVE_PAGE * (last - page) as u32;
    }

    fn outcome(&self) -> Outcome {
        let alone = TOUCH * self.behaviour.touches as u32;
        let rested = REST.as_nanos() as u64 / TOUCH.as_nanos() as u64;
        let resting = |page: &&Page| page.touched > 0 && page.touched + rested < self.touch;
        let count = self.pages.iter().filter(resting).count();
        let away = self
            .pages
            .iter()
            .filter(resting)
            .filter(|page| page.is_away)
            .count();
        let ended = self.ended.unwrap_or(self.now);
        Outcome {
            slowdown: ended.as_secs_f64() / alone.as_secs_f64(),
            resting_away: (count > 0).then(|| away as f64 / count as f64),
        }
    }
}

impl Target for Simulated<'_> {
    type Error = Infallible;

    fn now(&mut self) -> Duration {
        self.now
    }

    fn usage(&mut self) -> Result<Usage, Infallible> {
        Ok(Usage {
            cpu: self.now,
            stall: self.stall,
        })
    }

    fn look(&mut self, found: &mut Vec<Seen>) -> Result<(), Infallible> {
        self.advance(LOOK_PAGE * self.pages.len() as u32, 1);
        for (number, pages) in self.pages.chunks(BLOCK_PAGES as usize).enumerate() {
            let set = |select: fn(&Page) -> bool| {
                let mut set = PageSet::default();
                for (page, _) in (0..).zip(pages).filter(|(_, page)| select(page)) {
                    set.add(page..page + 1);
                }
                set
            };
            found.push(Seen {
                id: BlockId {
                    pid: 1,
                    address: number as u64 * BLOCK_BYTES,
                },
                present: set(|page| page.touched > 0 && !page.is_away),
                away: set(|page| page.is_away),
                is_huge: false,
            });
        }
        Ok(())
    }

    fn migrate(&mut self, range: &Move) -> Result<u64, Infallible> {
        let first = (range.range.start / PAGE_BYTES) as usize;
        let last = ((range.range.end / PAGE_BYTES) as usize).min(self.pages.len());
        let to_device = range.to == Side::Device;
        let mut moved = 0;
        for page in &mut self.pages[first..last] {
            if page.touched > 0 && page.is_away != to_device {
                page.is_away = to_device;
                moved += 1;
            }
        }
        self.advance(CALL + MOVE_PAGE * moved, 2);
        Ok(u64::from(moved))
    }

    fn sleep(&mut self, time: Duration) {
        self.advance(time, 1);
    }

    fn is_stopped(&mut self) -> bool {
        // A program that takes a hundred times as long will not end.
        self.ended.is_some() || self.now > TOUCH * self.behaviour.touches as u32 * 100
    }
}

/// Moves everything in every pass, as `--policy stress` does.
fn move_everything(program: &mut Simulated<'_>) {
    while !program.is_stopped() {
        let began = program.now;
        let range = 0..program.pages.len() as u64 * PAGE_BYTES;
        if !range.is_empty() {
            let _ = program.migrate(&Move {
                pid: 1,
                range,
                to: Side::Device,
            });
        }
        let pass = program.now - began;
        program.sleep(INTERVAL.max(pass));
    }
}

fn outcome(behaviour: &Behaviour, policy: Policy) -> Outcome {
    let mut program = Simulated::new(behaviour);
    match policy.rules() {
        Some(rules) => {
            let Ok(()) = Pacer::new(rules, INTERVAL).run(&mut program);
        }
        None => move_everything(&mut program),
    }
    program.outcome()
}

const RANDOM: Behaviour = Behaviour {
    name: "random access to 32 MiB",
    touches: 800_000,
    page: |_, random| random % 8192,
};

const BEHAVIOURS: [Behaviour; 8] = [
    RANDOM,
    Behaviour {
        name: "fills 36 MiB, then reads it at random",
        touches: 800_000,
        page: |touch, random| {
            if touch < 300_000 {
                if touch % 2 == 0 {
                    touch * 9216 / 300_000
                } else {
                    random % 256
                }
            } else {
                random % 9216
            }
        },
    },
    Behaviour {
        name: "4 MiB in use, 60 MiB at rest",
        touches: 1_600_000,
        page: |touch, random| {
            if touch < 100_000 {
                touch * 16_384 / 100_000
            } else {
                random % 1024
            }
        },
    },
    Behaviour {
        name: "every 16th page of 64 MiB in use",
        touches: 2_000_000,
        page: |touch, random| {
            if touch < 100_000 {
                touch * 16_384 / 100_000
            } else {
                random % 1024 * 16
            }
        },
    },
    Behaviour {
        name: "grows to 64 MiB and uses all of it",
        touches: 1_600_000,
        page: |touch, random| random % (1024 + touch * 15_360 / 1_600_000),
    },
    Behaviour {
        name: "reads 32 MiB in order, over and over",
        touches: 800_000,
        page: |touch, _| touch / 20 % 8192,
    },
    Behaviour {
        name: "one part of four after the other",
        touches: 2_000_000,
        page: |touch, random| touch / 500_000 * 2048 + random % 2048,
    },
    Behaviour {
        name: "builds 256 MiB and computes with 1 MiB",
        touches: 2_000_000,
        page: |touch, random| {
            if touch < 200_000 {
                touch * 65_536 / 200_000
            } else {
                random % 256
            }
        },
    },
];

fn check(policy: Policy, most: f64) {
    let mut failures = Vec::new();
    for behaviour in &BEHAVIOURS {
        let outcome = outcome(behaviour, policy);
        let text = format!(
            "{}: {:.2} times as long, of the pages at rest {} are away",
            behaviour.name,
            outcome.slowdown,
            outcome.resting_away.map_or_else(
                || "none".to_owned(),
                |part| format!("{:.0} %", part * 100.0)
            )
        );
        println!("{text}");
        if outcome.slowdown > most || outcome.resting_away.is_some_and(|part| part < 0.8) {
            failures.push(text);
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn to_device_costs_at_most_three_tenths_and_memory_at_rest_leaves() {
    check(Policy::ToDevice, 1.3);
}

#[test]
fn churn_costs_at_most_as_much_again_and_memory_at_rest_leaves() {
    check(Policy::Churn, 2.0);
}

/// Without a bound, random access is as slow as the faults: what the others must not be.
#[test]
fn stress_has_no_bound() {
    assert!(outcome(&RANDOM, Policy::Stress).slowdown > 5.0);
}

/// Churn moves memory in use, too: that is what it is for.
#[test]
fn churn_moves_memory_in_use() {
    let mut program = Simulated::new(&RANDOM);
    let rules = Policy::Churn.rules().unwrap();
    let Ok(()) = Pacer::new(rules, INTERVAL).run(&mut program);
    let seconds = program.now.as_secs_f64();
    let faults = program.stall.as_secs_f64() / FAULT.as_secs_f64();
    assert!(faults / seconds > 50.0, "{faults} faults in {seconds} s");
}
