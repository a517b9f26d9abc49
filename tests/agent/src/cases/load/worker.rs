// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A process that does anything with its memory.

use super::area::Area;
use super::history::History;
use super::operation::Operation;
use super::site::Site;
use crate::cases::support::jobs::Jobs;
use crate::cases::support::prelude::*;
use crate::cases::support::random::Random;
use hmm_uapi::client::{JobId, PrefetchId};
use std::ops::Range;
use std::path::PathBuf;

/// Most operations of a child.
const MOST_STEPS: usize = 25;
/// Generations below a worker.
const GENERATIONS: u32 = 2;

/// What a worker is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    /// Pages that it has at least, when it begins an operation.
    pub(super) pages: usize,
    /// Device memory that it may have on devices that have plenty, bytes.
    pub(super) limit: u64,
    /// Device memory that it may have on the crowded device, bytes.
    pub(super) limit_crowded: Option<u64>,
}

/// A prefetch that goes on.
#[derive(Debug)]
pub(super) struct Begun {
    /// Index of the device.
    pub(super) device: usize,
    pub(super) id: PrefetchId,
    pub(super) range: Range<u64>,
}

/// A job that goes on.
#[derive(Debug)]
pub(super) struct BegunJob {
    /// Index of the device.
    pub(super) device: usize,
    pub(super) id: JobId,
    /// What it reads.
    pub(super) range: Range<u64>,
}

/// The process.
pub(super) struct Worker<'a> {
    pub(super) site: &'a Site,
    pub(super) profile: Profile,
    pub(super) random: Random,
    /// All devices; the last is the crowded one.
    pub(super) movers: Vec<Mover>,
    /// The same devices, opened once more.
    pub(super) jobs: Vec<Jobs>,
    pub(super) areas: Vec<Area>,
    pub(super) children: Vec<Child>,
    pub(super) prefetches: Vec<Begun>,
    pub(super) begun_jobs: Vec<BegunJob>,
    pub(super) history: History,
    generation: u32,
}

impl<'a> Worker<'a> {
    /// Starts one.
    pub(super) fn start(
        site: &'a Site,
        name: &str,
        profile: Profile,
        seed: u64,
        before: impl FnOnce() -> Result<()>,
    ) -> Result<Child> {
        fork(|| {
            site.board.watch(|| {
                before()?;
                let mut worker = Self {
                    site,
                    profile,
                    random: Random::new(seed),
                    movers: movers(&site.nodes, &profile)?,
                    jobs: jobs(&site.nodes)?,
                    areas: Vec::new(),
                    children: Vec::new(),
                    prefetches: Vec::new(),
                    begun_jobs: Vec::new(),
                    history: History::default(),
                    generation: 0,
                };
                worker.work(usize::MAX).with_context(|| {
                    format!(
                        "seed {}, {name}, which did last:{}\n",
                        site.seed, worker.history
                    )
                })
            })
        })
    }

    /// Does so many operations, unless the load is over before.
    fn work(&mut self, steps: usize) -> Result<()> {
        for step in 0..steps {
            if self.site.board.is_over() {
                break;
            }
            self.have_memory()?;
            let operation = Operation::some(&mut self.random);
            self.perform(operation)
                .with_context(|| format!("step {step}, {operation:?}"))?;
            self.site.board.count(operation);
        }
        self.finish().context("at the end")
    }

    fn have_memory(&mut self) -> Result<()> {
        let mut pages: usize = self.areas.iter().map(Area::pages).sum();
        while pages < self.profile.pages {
            let mut area = Area::some(&mut self.random)?;
            area.model.write_all(&mut self.random);
            pages += area.pages();
            self.areas.push(area);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        while let Some(child) = self.children.pop() {
            child.wait()?;
        }
        while !self.prefetches.is_empty() {
            self.wait_for_prefetch()?;
        }
        while !self.begun_jobs.is_empty() {
            self.end_job()?;
        }
        for area in &self.areas {
            area.model.check_all().with_context(|| area.to_string())?;
        }
        Ok(())
    }

    /// Forks. The child goes on with the same memory while this process does.
    pub(super) fn fork(&mut self) -> Result<String> {
        if self.generation == GENERATIONS {
            return Ok("no more generations".to_owned());
        }
        // The more there are, the less they do: memory is limited.
        if self.children.len() > 1 {
            self.bury()?;
        }
        let seed = self.random.next();
        let child = fork(|| {
            let board = &self.site.board;
            board.watch_child(|| {
                self.be_a_child(seed)?;
                let steps = 1 + self.random.below(MOST_STEPS);
                self.work(steps).with_context(|| {
                    format!(
                        "seed {}, a child of generation {}, which did last:{}\n",
                        self.site.seed, self.generation, self.history
                    )
                })
            })
        })?;
        let text = format!("process {}", child.id()?);
        self.children.push(child);
        Ok(text)
    }

    fn be_a_child(&mut self, seed: u64) -> Result<()> {
        // They are the parent's to wait for.
        std::mem::take(&mut self.children)
            .into_iter()
            .for_each(std::mem::forget);
        self.prefetches.clear();
        self.begun_jobs.clear();
        self.random = Random::new(seed);
        self.generation += 1;
        self.profile.pages = 1;
        self.profile.limit /= 4;
        self.profile.limit_crowded = self.profile.limit_crowded.map(|limit| limit / 4);
        // Prefetches and jobs belong to the open file, and limits to the process.
        self.movers = movers(&self.site.nodes, &self.profile)?;
        self.jobs = jobs(&self.site.nodes)?;
        Ok(())
    }

    /// Waits for the oldest child.
    pub(super) fn bury(&mut self) -> Result<String> {
        if self.children.is_empty() {
            return Ok("there are no children".to_owned());
        }
        let child = self.children.remove(0);
        let text = format!("process {}", child.id()?);
        child.wait().with_context(|| text.clone())?;
        Ok(text)
    }

    /// One of the devices: mostly the crowded one.
    pub(super) fn some_device(&mut self) -> usize {
        match self.random.below(6) {
            0 => self.random.below(self.movers.len()),
            _ => self.movers.len() - 1,
        }
    }

    /// One of the mappings.
    pub(super) fn some_area(&mut self) -> usize {
        self.random.below(self.areas.len())
    }
}

/// Opens all devices for jobs.
fn jobs(nodes: &[PathBuf]) -> Result<Vec<Jobs>> {
    nodes.iter().map(|node| Jobs::on(node)).collect()
}

/// Opens all devices and sets the process's limits.
fn movers(nodes: &[PathBuf], profile: &Profile) -> Result<Vec<Mover>> {
    let mut movers = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let mover = Mover::on(node)?;
        let is_crowded = index + 1 == nodes.len();
        let limit = match is_crowded {
            true => profile.limit_crowded,
            false => Some(profile.limit),
        };
        mover.device.set_limit(Process::Caller, limit)?;
        movers.push(mover);
    }
    Ok(movers)
}
