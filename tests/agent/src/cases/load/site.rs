// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the load takes place: starts the processes, kills some, looks after the others, and tells the host how far they
//! are.

use super::board::Board;
use super::outcome::Outcome;
use super::outsider;
use super::worker::{Profile, Worker};
use crate::cases::support::cgroup::MemoryCgroup;
use crate::cases::support::prelude::*;
use crate::cases::support::random::Random;
use crate::cases::support::setting::{self, Setting};
use crate::cases::support::swap::Swap;
use crate::cases::support::{kernel, nodes};
use hmm_uapi::Stats;
use hmm_uapi::client::Device;
use rustix::process::Signal;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// Workers that live to the end, beside the one in a tight cgroup. Together with their children they have more memory
/// than the small device.
const WORKERS: u64 = 3;
const WIDE: Profile = Profile {
    pages: 24 * MIB / PAGE,
    limit: 8 << 20,
    limit_crowded: None,
};
/// Pages on a device are charged to the cgroup and cannot be reclaimed, so its device memory has to be limited as well.
const TIGHT: Profile = Profile {
    pages: 24 * MIB / PAGE,
    limit: 2 << 20,
    limit_crowded: Some(4 << 20),
};
/// Lives too short for more.
const VICTIM: Profile = Profile {
    pages: 8 * MIB / PAGE,
    ..WIDE
};
/// What a cgroup may have, bytes.
const WIDE_MEMORY: u64 = 224 << 20;
const TIGHT_MEMORY: u64 = 20 << 20;
/// All of the above, children included, several times.
const SWAP_PAGES: u32 = 64 << 10;
/// How much the kernel looks at when it looks for equal pages, and how long it rests then. Without a rest it would take a
/// processor.
const KSM_PAGES: u32 = 500;
const KSM_REST_MS: u32 = 20;
/// How long a worker lives that is killed, milliseconds, on a kernel for everyday use.
const LEAST_LIFE: usize = 300;
const MOST_LIFE: usize = 6000;
/// How often everything is looked at.
const TICK: Duration = Duration::from_millis(50);
const REPORT: Duration = Duration::from_secs(60);

/// What all processes know.
pub(super) struct Site {
    /// What each begins its random numbers with, with its own number added.
    pub(super) seed: u64,
    pub(super) board: Board,
    /// The devices; the smallest, which is the crowded one, comes last.
    pub(super) nodes: Vec<PathBuf>,
    wide: MemoryCgroup,
    tight: MemoryCgroup,
    _swap: Swap,
    _settings: [Vec<Setting>; 2],
}

/// A worker that lives to the end.
struct Steady {
    name: String,
    child: Child,
}

/// A worker that is to be killed.
struct Victim {
    child: Child,
    end: Instant,
}

impl Site {
    /// Prepares the kernel.
    pub(super) fn new(seed: u64) -> Result<Self> {
        let (wide, tight) = (MemoryCgroup::new("wide")?, MemoryCgroup::new("tight")?);
        wide.limit(WIDE_MEMORY)?;
        tight.limit(TIGHT_MEMORY)?;
        Ok(Self {
            seed,
            board: Board::new()?,
            nodes: nodes::all(),
            wide,
            tight,
            _swap: Swap::new(SWAP_PAGES)?,
            _settings: [
                setting::ksm(KSM_PAGES, KSM_REST_MS)?,
                setting::khugepaged()?,
            ],
        })
    }

    /// Lets everything go on for so long, and checks everything at the end.
    pub(super) fn run(&self, time: Duration) -> Result<Outcome> {
        eprintln!("seed {}", self.seed);
        let before = self.stats()?;
        let complained = kernel::has_complained()?;
        // Every process of the load has a copy of the writing end, so it is closed when all of them are gone.
        let (gone, alive) = std::io::pipe()?;
        let started = Instant::now();
        let mut fullest = 0;
        let result = self.supervise(started, time, complained, &mut fullest);
        let result = result.and_then(|()| self.bury_all(&gone, alive));
        let outcome = Outcome::new(
            &self.board,
            &before,
            self.stats()?,
            (self.capacity()?, fullest),
        );
        self.report(started)?;
        eprintln!("{outcome:?}");
        result.with_context(|| format!("seed {}{}", self.seed, self.out_of_memory()))?;
        Ok(outcome)
    }

    fn supervise(
        &self,
        started: Instant,
        time: Duration,
        complained: bool,
        fullest: &mut u64,
    ) -> Result<()> {
        let mut random = Random::new(self.seed);
        let mut steady = self.start_steady()?;
        let mut victim: Option<Victim> = None;
        let mut victims = 0;
        let mut next_report = started + REPORT;
        while started.elapsed() < time {
            std::thread::sleep(TICK);
            for Steady { name, child } in &steady {
                ensure!(!child.has_ended()?, "{name} has ended before its time");
            }
            ensure!(self.board.failed() == 0, "a process has failed");
            ensure!(
                kernel::has_complained()? == complained,
                "the kernel has complained; its log says about what"
            );
            *fullest = (*fullest).max(self.stats()?.resident_bytes);
            if victim
                .as_ref()
                .is_some_and(|victim| victim.end < Instant::now())
                && let Some(Victim { child, .. }) = victim.take()
            {
                self.kill(child)?;
            }
            if victim.is_none() {
                victims += 1;
                let life = LEAST_LIFE + random.below(MOST_LIFE - LEAST_LIFE);
                victim = Some(self.start_victim(
                    victims,
                    Duration::from_millis(life as u64) * kernel::patience(),
                )?);
            }
            if Instant::now() > next_report {
                next_report += REPORT;
                self.report(started)?;
            }
        }
        self.board.end();
        if let Some(Victim { child, .. }) = victim {
            steady.push(Steady {
                name: "the last victim".to_owned(),
                child,
            });
        }
        for Steady { name, child } in steady {
            child.wait().context(name)?;
        }
        Ok(())
    }

    fn start_steady(&self) -> Result<Vec<Steady>> {
        let mut steady = Vec::new();
        for number in 0..WORKERS {
            let name = format!("worker {number}");
            let child = self.worker(&name, WIDE, number, &self.wide)?;
            steady.push(Steady { name, child });
        }
        let name = "the worker in a tight cgroup".to_owned();
        let child = self.worker(&name, TIGHT, WORKERS, &self.tight)?;
        steady.push(Steady { name, child });
        for (slot, Steady { child, .. }) in steady.iter().enumerate() {
            self.board.set_process(slot, child.id()?);
        }
        steady.push(Steady {
            name: "the outsider".to_owned(),
            child: outsider::start(self, self.seed_of(WORKERS + 1))?,
        });
        Ok(steady)
    }

    /// Has a slot of its own.
    fn start_victim(&self, number: u64, life: Duration) -> Result<Victim> {
        let name = format!("victim {number}");
        let number = WORKERS + 1 + number;
        let child = self.worker(&name, VICTIM, number, &self.wide)?;
        self.board.set_process(Self::SLOT_OF_VICTIM, child.id()?);
        Ok(Victim {
            child,
            end: Instant::now() + life,
        })
    }

    const SLOT_OF_VICTIM: usize = WORKERS as usize + 1;

    fn worker(
        &self,
        name: &str,
        profile: Profile,
        number: u64,
        cgroup: &MemoryCgroup,
    ) -> Result<Child> {
        let seed = self.seed_of(number);
        Worker::start(self, name, profile, seed, || cgroup.enter())
    }

    fn seed_of(&self, number: u64) -> u64 {
        (self.seed << 20).wrapping_add(number)
    }

    fn kill(&self, child: Child) -> Result<()> {
        self.board.set_process(Self::SLOT_OF_VICTIM, 0);
        child.signal(Signal::KILL)?;
        child
            .wait_for_signal(Signal::KILL)
            .context("a worker that was to be killed")?;
        self.board.count_killed();
        Ok(())
    }

    /// Waits for children of workers that were killed: they have no other parent.
    fn bury_all(&self, mut gone: &PipeReader, alive: PipeWriter) -> Result<()> {
        drop(alive);
        gone.read_to_end(&mut Vec::new())
            .context("cannot wait for the last processes")?;
        let (started, ended) = self.board.children();
        ensure!(
            self.board.failed() == 0 && started == ended,
            "{} processes have failed, and of {started} children {ended} came to a good end",
            self.board.failed()
        );
        Ok(())
    }

    fn crowded(&self) -> Result<Device> {
        let node = self.nodes.last().context("there is no device")?;
        Ok(Device::open(node)?)
    }

    fn stats(&self) -> Result<Stats> {
        Ok(self.crowded()?.stats()?)
    }

    fn capacity(&self) -> Result<u64> {
        Ok(self.crowded()?.info()?.memory_bytes)
    }

    /// Writes to the kernel's log how far it is.
    fn report(&self, started: Instant) -> Result<()> {
        let stats = self.stats()?;
        let text = format!(
            "hmm-agent: load: {} s, {} operations, {} children, {} killed; crowded device: {} MiB to it, \
             {} MiB back, of these {} by faults and {} by eviction\n",
            started.elapsed().as_secs(),
            self.board.done_in_all(),
            self.board.children().0,
            self.board.killed(),
            stats.bytes_to_device >> 20,
            stats.bytes_to_system >> 20,
            stats.bytes_by_fault >> 20,
            stats.bytes_by_eviction >> 20,
        );
        // One write is one line of the log.
        File::options()
            .write(true)
            .open("/dev/kmsg")
            .and_then(|mut log| log.write_all(text.as_bytes()))
            .context("cannot write to the kernel's log")
    }

    /// What to know about a process that was killed and should not have been.
    fn out_of_memory(&self) -> String {
        let killed = |cgroup: &MemoryCgroup| cgroup.events("oom_kill").unwrap_or(0);
        match killed(&self.wide) + killed(&self.tight) {
            0 => String::new(),
            killed => format!("; {killed} processes were killed because a cgroup was full"),
        }
    }
}
