// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The figures: what is measured, what it is compared with, and what was to be reached.

use std::time::{Duration, Instant};

use hmm_protocol::Op;
use vhost_user_hmm::engine::{CopyChoice, CopyRoutines};

use crate::{
    jobs,
    load::{Batch, Random, Shape},
    path::{DEVICE, Path},
    processors::Processors,
    programs,
    report::{Figure, Report},
    threads::TwoThreads,
    translations,
};

/// Bytes of one round of a figure: long enough to be measured, short enough that the machine is the same for both.
const ROUND_BYTES: u64 = 32 << 20;
/// Figures are ratios of times: memcpy's by the device's.
const PLAIN_PAGES_GOAL: f64 = 0.95;
const BEST_PAGES_GOAL: f64 = 1.15;
const EXTENTS_GOAL: f64 = 1.0;
const OVERHEAD_GOAL_NS: f64 = 40.0;
const QUEUES_GOAL: f64 = 1.6;

const BEYOND: &str = "time beyond memcpy, of a page";
const WITHOUT: &str = "time of a page without its copy";
const WORDS: &str = "time of an entry of 8 bytes, cached";
const QUEUES: &str = "two bulk queues by one";
const THREADS: &str = "two threads of memcpy by one";

/// Runs everything; `time` for each figure.
pub(crate) fn measure(time: Duration, footprint: u64, only: &str, beside: Option<&str>) -> Report {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load_average = hmm_figures::load_average();
    let mut bench = Bench {
        processors: Processors::new(),
        time,
        footprint,
        random: Random::new(1),
    };
    let poll = if processors > 1 { "200" } else { "0" };
    let mut plain = Path::start(footprint, 1, &["--copy", "memcpy", "--poll-us", poll]);
    let mut best = Path::start(footprint, 1, &["--copy", "auto", "--poll-us", poll]);
    let mut figures = Vec::new();
    for op in [Op::ToDevice, Op::ToSystem] {
        let named = |what: &str| format!("{} {what}", op.name());
        let pages = Case::new(Shape::PageList, op, 512, 2);
        let entries = Case::new(Shape::Pages, op, 512, 2);
        let extents = Case::new(Shape::Extents, op, 8, 2);
        for (ordinary, name, case, goal) in [
            (
                true,
                named("4 KiB pages x 512, plain copies"),
                pages,
                Some(PLAIN_PAGES_GOAL),
            ),
            (
                false,
                named("4 KiB pages x 512, best copies"),
                pages,
                Some(BEST_PAGES_GOAL),
            ),
            (
                false,
                named("4 KiB entries x 512, best copies"),
                entries,
                None,
            ),
            (
                false,
                named("2 MiB extents x 8, best copies"),
                extents,
                Some(EXTENTS_GOAL),
            ),
        ] {
            if name.contains(only) {
                let path = if ordinary { &mut plain } else { &mut best };
                figures.push(bench.ratio(path, name, case, goal));
            }
        }
    }
    if BEYOND.contains(only) {
        figures.push(bench.overhead(&mut plain));
    }
    if WITHOUT.contains(only) {
        figures.push(bench.without_copies(poll));
    }
    if WORDS.contains(only) {
        figures.push(bench.words(&mut plain));
    }
    if QUEUES.contains(only) {
        figures.extend(bench.queues(processors));
    }
    for queues in SMALL_QUEUES {
        let name = format!("small batch, queues: {queues}");
        if name.contains(only) {
            figures.extend(bench.small_batches(&name, queues, beside));
        }
    }
    figures.extend(jobs::measure(
        &bench.processors,
        &mut bench.random,
        time,
        footprint,
        only,
    ));
    figures.extend(translations::measure(time, only));
    figures.extend(programs::measure(&bench.processors, time, footprint, only));
    let mut sweep = Vec::new();
    for depth in [1, 2, 4] {
        for count in [1, 4, 16, 64, 256, 512, 1024, 4096] {
            let name = format!("sweep: to_device 4 KiB pages x {count}, depth {depth}");
            if name.contains(only) {
                let case = Case::new(Shape::PageList, Op::ToDevice, count, depth);
                sweep.push(bench.ratio(&mut best, name, case, None));
            }
        }
    }
    Report {
        kind: "measured",
        processors,
        copies: CopyRoutines::new(CopyChoice::Auto).summary(),
        footprint_bytes: footprint,
        huge_bytes: (best.huge_bytes(), best.baseline.huge_bytes()),
        load_average,
        figures,
        sweep,
    }
}

/// Numbers of queues for which small batches are measured, and batches for each queue.
const SMALL_QUEUES: [u16; 3] = [1, 2, 8];
const SMALL_BATCHES: u16 = 1024;

/// What is copied, how many entries a batch, how many batches in flight.
#[derive(Clone, Copy)]
struct Case {
    shape: Shape,
    op: Op,
    count: u64,
    depth: usize,
}

impl Case {
    fn new(shape: Shape, op: Op, count: u64, depth: usize) -> Self {
        Self {
            shape,
            op,
            count,
            depth,
        }
    }
}

/// The times of a round: what passed, and what was spent. Both copied on the same processor.
struct Round {
    memcpy: Duration,
    memcpy_cost: Duration,
    device: Duration,
    device_cost: Duration,
}

struct Bench {
    processors: Processors,
    time: Duration,
    footprint: u64,
    random: Random,
}

impl Bench {
    fn batches(&mut self, shape: Shape, op: Op, count: u64, rounds_bytes: u64) -> Vec<Batch> {
        let one = Batch::random(shape, op, count, self.footprint, &mut self.random);
        let number = (rounds_bytes / one.bytes()).clamp(4, 512);
        (0..number)
            .map(|_| Batch::random(shape, op, count, self.footprint, &mut self.random))
            .collect()
    }

    /// Alternates memcpy and the device and calls `each` with the times of every round.
    fn rounds(
        &mut self,
        path: &mut Path,
        batches: &[Batch],
        depth: usize,
        mut each: impl FnMut(&Round),
    ) {
        let prepared = path.prepare(batches);
        // The first round warms up caches, tables and the device's thread.
        path.baseline.run(&path.front_end.guest, batches);
        path.run(&prepared, depth, 1);
        let started = Instant::now();
        let mut rounds = 0;
        while rounds < 4 || started.elapsed() < self.time {
            let (copier, other) = self.processors.pair(rounds);
            self.processors.move_self_to(copier);
            let (memcpy, memcpy_cost) = path.baseline.run(&path.front_end.guest, batches);
            self.processors.move_process_to(path.pid(), copier);
            self.processors.move_self_to(other);
            let round = Round {
                memcpy,
                memcpy_cost,
                device: path.run(&prepared, depth, 1),
                device_cost: path.run_asleep(&prepared, 1).1,
            };
            each(&round);
            rounds += 1;
        }
        self.processors.free_self();
        self.processors.free_process(path.pid());
    }

    fn ratio(&mut self, path: &mut Path, name: String, case: Case, goal: Option<f64>) -> Figure {
        let batches = self.batches(case.shape, case.op, case.count, ROUND_BYTES);
        let (mut ratios, mut costs) = (Vec::new(), Vec::new());
        self.rounds(path, &batches, case.depth, |round| {
            ratios.push(round.memcpy.as_secs_f64() / round.device.as_secs_f64());
            costs.push(round.memcpy_cost.as_secs_f64() / round.device_cost.as_secs_f64());
        });
        Figure::new(name, "ratio", goal, ratios).with_cost(costs)
    }

    /// Time of the whole path beyond memcpy's, for each page.
    fn overhead(&mut self, path: &mut Path) -> Figure {
        let batches = self.batches(Shape::PageList, Op::ToDevice, 512, ROUND_BYTES);
        let pages = (batches.len() * 512) as f64;
        let (mut beyond, mut costs) = (Vec::new(), Vec::new());
        let by_page = |more: Duration, less: Duration| {
            (more.as_secs_f64() - less.as_secs_f64()) * 1e9 / pages
        };
        self.rounds(path, &batches, 2, |round| {
            beyond.push(by_page(round.device, round.memcpy));
            costs.push(by_page(round.device_cost, round.memcpy_cost));
        });
        Figure::new(BEYOND, "ns", Some(OVERHEAD_GOAL_NS), beyond).with_cost(costs)
    }

    /// Time of the whole path without any copy, for each page.
    fn without_copies(&mut self, poll: &str) -> Figure {
        let arguments = ["--copy", "none", "--bench-lose-data", "--poll-us", poll];
        let mut path = Path::start(self.footprint, 1, &arguments);
        let batches = self.batches(Shape::PageList, Op::ToDevice, 512, ROUND_BYTES);
        self.times(&mut path, &batches, WITHOUT)
    }

    /// Time of an entry that copies almost nothing.
    fn words(&mut self, path: &mut Path) -> Figure {
        let batches = self.batches(Shape::Words, Op::ToDevice, 512, 512 * 8 * 64);
        self.times(path, &batches, WORDS)
    }

    /// Time of the whole path, for each entry.
    fn times(&mut self, path: &mut Path, batches: &[Batch], name: &str) -> Figure {
        let entries: usize = batches.iter().map(|batch| batch.entries.len()).sum();
        let (mut times, mut costs) = (Vec::new(), Vec::new());
        self.rounds(path, batches, 2, |round| {
            times.push(round.device.as_secs_f64() * 1e9 / entries as f64);
            costs.push(round.device_cost.as_secs_f64() * 1e9 / entries as f64);
        });
        Figure::new(name, "ns", Some(OVERHEAD_GOAL_NS), times).with_cost(costs)
    }

    /// Processor time of the device for a batch of one small entry, which is hardly more than what each batch costs
    /// beside its copies. With another device beside it, both take turns on the same batches.
    fn small_batches(&mut self, name: &str, queues: u16, beside: Option<&str>) -> Vec<Figure> {
        let number = SMALL_BATCHES * queues;
        let batches: Vec<Batch> = (0..number)
            .map(|_| {
                Batch::random(
                    Shape::Words,
                    Op::ToDevice,
                    1,
                    self.footprint,
                    &mut self.random,
                )
            })
            .collect();
        let start = |program: &str| {
            let arguments = ["--copy", "memcpy", "--poll-us", "0"];
            let path = Path::start_program(program, self.footprint, queues, &arguments);
            let prepared = path.prepare(&batches);
            (path, prepared)
        };
        let mut devices: Vec<_> = [DEVICE].into_iter().chain(beside).map(start).collect();
        let mut costs = vec![Vec::new(); devices.len()];
        let started = Instant::now();
        while costs[0].len() < 5 || started.elapsed() < self.time {
            for ((path, prepared), costs) in devices.iter_mut().zip(&mut costs) {
                let (_, cost) = path.run_asleep(prepared, queues);
                costs.push(cost.as_secs_f64() * 1e9 / f64::from(number));
            }
        }
        let ratios = |others: &[f64]| -> Vec<f64> {
            let pairs = others.iter().zip(&costs[0]);
            pairs.map(|(other, own)| other / own).collect()
        };
        let mut figures = vec![Figure::new(name, "ns", None, costs[0].clone())];
        for others in &costs[1..] {
            let by = Figure::new(
                format!("{name}, other by this"),
                "ratio",
                None,
                ratios(others),
            );
            figures.push(Figure::new(
                format!("{name}, other device"),
                "ns",
                None,
                others.clone(),
            ));
            figures.push(by);
        }
        figures
    }

    /// Two bulk queues by one. The front end sleeps, so two processors are enough.
    fn queues(&mut self, processors: usize) -> Vec<Figure> {
        if processors < 2 {
            return vec![Figure::absent(
                QUEUES,
                "ratio",
                QUEUES_GOAL,
                "two workers need two processors".to_owned(),
            )];
        }
        let mut path = Path::start(self.footprint, 2, &["--poll-us", "0"]);
        // As many batches for two queues as for one, and in all twice as many as one queue takes at a time.
        let batches = self.batches(Shape::PageList, Op::ToDevice, 512, 256 << 20);
        let prepared = path.prepare(&batches);
        path.run_asleep(&prepared, 2);
        let started = Instant::now();
        let mut threads = TwoThreads::new();
        let (mut ratios, mut costs, mut bounds) = (Vec::new(), Vec::new(), Vec::new());
        while ratios.len() < 3 || started.elapsed() < self.time {
            bounds.push(threads.by_one());
            let (one, one_cost) = path.run_asleep(&prepared, 1);
            let (two, two_cost) = path.run_asleep(&prepared, 2);
            ratios.push(one.as_secs_f64() / two.as_secs_f64());
            costs.push(one_cost.as_secs_f64() / two_cost.as_secs_f64());
        }
        vec![
            Figure::new(QUEUES, "ratio", Some(QUEUES_GOAL), ratios).with_cost(costs),
            Figure::new(THREADS, "ratio", None, bounds),
        ]
    }
}
