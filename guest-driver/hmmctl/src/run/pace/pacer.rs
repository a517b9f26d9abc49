// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The loop: look, learn, move, wait.

use super::block::Seen;
use super::budget::Budget;
use super::planner::{Move, Planner, Rules, Side};
use std::time::Duration;

/// How often the program's stalls are looked at between two passes while there are any.
const SLICE: Duration = Duration::from_millis(20);
/// The same while there are none. To look wakes a processor up, which costs the program, too.
const CALM_SLICE: Duration = Duration::from_millis(100);
/// Looks take at most one part in so many of the time.
const LOOK_PARTS: u32 = 20;

/// What the program used, since it began.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::run) struct Usage {
    /// Processor time of all its processes.
    pub(in crate::run) cpu: Duration,
    /// Time that its threads waited for CPU faults on device pages.
    pub(in crate::run) stall: Duration,
}

/// A program whose memory is moved.
pub(in crate::run) trait Target {
    type Error;

    /// Time since some moment.
    fn now(&mut self) -> Duration;

    /// What the program used so far.
    fn usage(&mut self) -> Result<Usage, Self::Error>;

    /// Adds all blocks that have private anonymous pages.
    fn look(&mut self, found: &mut Vec<Seen>) -> Result<(), Self::Error>;

    /// Moves a range; the pages that moved.
    fn migrate(&mut self, range: &Move) -> Result<u64, Self::Error>;

    /// Sleeps at most so long, less if moving is to end.
    fn sleep(&mut self, time: Duration);

    /// Whether moving is to end.
    fn is_stopped(&mut self) -> bool;
}

/// Paces the moves of one program.
#[derive(Debug)]
pub(in crate::run) struct Pacer {
    interval: Duration,
    budget: Budget,
    planner: Planner,
    /// Time that the program got on: the clock of all waits.
    progress: Duration,
    at: Duration,
    usage: Usage,
}

impl Pacer {
    pub(in crate::run) fn new(rules: Rules, interval: Duration) -> Self {
        Self {
            interval,
            budget: Budget::new(rules.share),
            planner: Planner::new(rules, interval.max(SLICE)),
            progress: Duration::ZERO,
            at: Duration::ZERO,
            usage: Usage::default(),
        }
    }

    /// Moves memory until the target is stopped.
    pub(in crate::run) fn run<T: Target>(&mut self, target: &mut T) -> Result<(), T::Error> {
        self.at = target.now();
        self.usage = target.usage()?;
        let mut found = Vec::new();
        while !target.is_stopped() {
            let look = self.pass(target, &mut found)?;
            let until = target.now() + self.interval.max(look * LOOK_PARTS);
            // A look that is worth while for relief comes early, but not one upon the other.
            let earliest = target.now() + look;
            while !target.is_stopped() {
                let now = target.now();
                if now >= until {
                    break;
                }
                let slice = if self.budget.is_calm() {
                    CALM_SLICE
                } else {
                    SLICE
                };
                target.sleep(slice.min(until - now));
                self.account(target, Duration::ZERO)?;
                if self.budget.is_exceeded() && target.now() >= earliest {
                    break;
                }
            }
        }
        Ok(())
    }

    /// One look and the moves that follow from it; how long the look took.
    fn pass<T: Target>(
        &mut self,
        target: &mut T,
        found: &mut Vec<Seen>,
    ) -> Result<Duration, T::Error> {
        let began = target.now();
        found.clear();
        target.look(found)?;
        let look = target.now().saturating_sub(began);
        self.account(target, Duration::ZERO)?;
        self.planner.see(found, self.progress);
        let moves = if self.budget.is_exceeded() {
            self.planner.relief(self.progress)
        } else if self.budget.is_overdrawn() {
            self.planner.shrink();
            Vec::new()
        } else {
            let is_ample = self.budget.is_ample();
            self.planner.outgoing(self.progress, is_ample)
        };
        for range in moves {
            if target.is_stopped() || (range.to == Side::Device && self.budget.is_overdrawn()) {
                break;
            }
            let began = target.now();
            let pages = target.migrate(&range)?;
            let took = target.now().saturating_sub(began);
            self.planner.moved(&range, pages, self.progress);
            self.account(target, took)?;
        }
        Ok(look)
    }

    /// Books the time since the last call, in which memory was moved for so long. The program may run meanwhile, but it
    /// competes for processors and locks, and waits for the pages that are moving: the time counts as lost.
    fn account<T: Target>(&mut self, target: &mut T, moving: Duration) -> Result<(), T::Error> {
        let (now, usage) = (target.now(), target.usage()?);
        let wall = now.saturating_sub(self.at);
        let cpu = usage.cpu.saturating_sub(self.usage.cpu);
        let stall = usage.stall.saturating_sub(self.usage.stall);
        // Several threads get on at the same time, and several may be stalled.
        let progress = wall.max(cpu).saturating_sub(stall + moving);
        self.budget.pass(progress, stall);
        self.budget.spend(moving);
        self.progress += progress;
        self.at = now;
        self.usage = usage;
        Ok(())
    }
}
