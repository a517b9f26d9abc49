// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Jobs on resident memory beside the same work of this process on the same pages, and the price of a page fault.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use hmm_front_end::end_status;
use hmm_protocol::{
    ControlKind, JobFlags, JobKind, MapEntry, MapFlags, Report as JobReport, Status,
};

use crate::{
    baseline::processor_time,
    load::{GUEST_START, Random},
    path::Path,
    processors::Processors,
    report::Figure,
};

const PAGE: u64 = 4096;
const BLOCK: u64 = 2 << 20;
const CONTEXT: u32 = 1;
/// Where the guest's pages and the device's are in the context.
const GUEST: u64 = 1 << 40;
const DEVICE: u64 = 1 << 41;
/// Bytes that a job fills or copies in a round.
const BYTES: u64 = 32 << 20;
const NODES: u64 = 1 << 17;
const NODE_BYTES: u64 = 64;
const FAULTS: u64 = 512;
const FILL_GOAL: f64 = 0.8;
const COPY_GOAL: f64 = 0.8;

const FILL: &str = "fill job by memcpy, 2 MiB pages";
const COPY: &str = "copy job by memcpy, scattered 4 KiB pages";
const COPY_BLOCKS: &str = "copy job by memcpy, 2 MiB pages";
const WALK: &str = "walk job, scattered nodes";
const WALK_HERE: &str = "walk by this process, same nodes";
const FAULT: &str = "page fault of a job, with its answer";

/// Runs the figures whose name contains `only`; `time` for each.
pub(crate) fn measure(
    processors: &Processors,
    random: &mut Random,
    time: Duration,
    footprint: u64,
    only: &str,
) -> Vec<Figure> {
    let names = [FILL, COPY, COPY_BLOCKS, WALK, WALK_HERE, FAULT];
    if !names.iter().any(|name| name.contains(only)) {
        return Vec::new();
    }
    let mut bench = Bench::start(processors, random, time, footprint);
    let mut figures = Vec::new();
    if FILL.contains(only) {
        figures.push(bench.fill());
    }
    if COPY.contains(only) {
        figures.push(bench.copy(COPY, GUEST));
    }
    if COPY_BLOCKS.contains(only) {
        figures.push(bench.copy(COPY_BLOCKS, GUEST + 2 * BYTES));
    }
    if WALK.contains(only) || WALK_HERE.contains(only) {
        figures.extend(bench.walk());
    }
    if FAULT.contains(only) {
        figures.push(bench.fault());
    }
    figures
}

struct Bench<'a> {
    processors: &'a Processors,
    time: Duration,
    path: Path,
    /// The guest's pages in the order in which the context has them from `GUEST` on.
    pages: Vec<u64>,
}

impl<'a> Bench<'a> {
    /// A device whose context has `BYTES` of the guest in scattered pages, the same in blocks, and the device in blocks.
    fn start(
        processors: &'a Processors,
        random: &mut Random,
        time: Duration,
        footprint: u64,
    ) -> Self {
        let footprint = footprint.max(2 * BYTES);
        let mut path = Path::start(footprint, 1, &["--executors", "1"]);
        let front_end = &mut path.front_end;
        assert_eq!(
            front_end.ask(ControlKind::ContextCreate, CONTEXT.into(), 0),
            Status::Ok
        );
        let mut pages: Vec<u64> = (0..BYTES / PAGE)
            .map(|page| GUEST_START + page * PAGE)
            .collect();
        random.shuffle(&mut pages);
        let all = MapFlags::PERMISSIONS;
        let mut entries = vec![
            MapEntry::map(DEVICE, BYTES, 0, MapFlags::ALL, 21),
            MapEntry::map(GUEST + 2 * BYTES, BYTES, GUEST_START, all, 21),
        ];
        entries.extend(
            (0..)
                .zip(&pages)
                .map(|(page, target)| MapEntry::map(GUEST + page * PAGE, PAGE, *target, all, 12)),
        );
        for entries in entries.chunks(512) {
            assert_eq!(front_end.change(CONTEXT, entries).status(), Status::Ok);
        }
        Self {
            processors,
            time,
            path,
            pages,
        }
    }

    /// Alternates what this process does and a job, on the same processor, and returns the times of both.
    fn rounds(
        &mut self,
        kind: JobKind,
        arguments: &[u64],
        mut here: impl FnMut(&Path),
    ) -> Vec<Round> {
        let mut rounds = Vec::new();
        let started = Instant::now();
        while rounds.len() < 6 || started.elapsed() < self.time {
            let (worker, other) = self.processors.pair(rounds.len());
            self.processors.move_self_to(worker);
            let (before, spent) = (Instant::now(), processor_time());
            here(&self.path);
            let (ours, ours_cost) = (before.elapsed(), processor_time().saturating_sub(spent));
            self.processors.move_process_to(self.path.pid(), worker);
            self.processors.move_self_to(other);
            let spent = self.path.processor_time();
            let report = self.job(kind, arguments);
            rounds.push(Round {
                ours,
                ours_cost,
                job: Duration::from_nanos(report.device_ns.get()),
                job_cost: self.path.processor_time().saturating_sub(spent),
            });
        }
        self.processors.free_self();
        self.processors.free_process(self.path.pid());
        // The first round warms up caches and tables.
        rounds.split_off(1)
    }

    fn job(&mut self, kind: JobKind, arguments: &[u64]) -> JobReport {
        let front_end = &mut self.path.front_end;
        let report = front_end.run_job(kind, JobFlags::default(), CONTEXT, arguments);
        assert_eq!(end_status(&report), Status::Ok, "{report:?}");
        report
    }

    fn fill(&mut self) -> Figure {
        let rounds = self.rounds(JobKind::Fill, &[DEVICE, BYTES, 0x5a5a], |path| {
            let guest = path.front_end.guest.host_address(GUEST_START) as *const u8;
            // SAFETY: both mappings have more than BYTES bytes, they are different ones, and no job runs.
            unsafe {
                std::ptr::copy_nonoverlapping(guest, path.baseline.start(), BYTES as usize);
            }
        });
        beside(FILL, FILL_GOAL, &rounds)
    }

    /// Copies from `source`, which is the guest's memory in scattered pages or as it is.
    fn copy(&mut self, name: &str, source: u64) -> Figure {
        let pages = match source {
            GUEST => self.pages.clone(),
            _ => (0..BYTES / BLOCK)
                .map(|block| GUEST_START + block * BLOCK)
                .collect(),
        };
        let len = (BYTES / pages.len() as u64) as usize;
        let rounds = self.rounds(JobKind::Copy, &[DEVICE, source, BYTES], |path| {
            let guest = path.front_end.guest.host_address(0) as *const u8;
            for (index, page) in pages.iter().enumerate() {
                // SAFETY: both mappings have these `len` bytes, they are different ones, and no job runs.
                unsafe {
                    let to = path.baseline.start().add(index * len);
                    std::ptr::copy_nonoverlapping(guest.add(*page as usize), to, len);
                }
            }
        });
        beside(name, COPY_GOAL, &rounds)
    }

    /// A list of nodes of a cache line each, in random order, all over the scattered pages.
    fn walk(&mut self) -> [Figure; 2] {
        let mut order: Vec<u64> = (0..NODES).collect();
        Random::new(3).shuffle(&mut order);
        let of_guest = |node: u64| {
            let at = node * NODE_BYTES;
            self.pages[(at / PAGE) as usize] + at % PAGE
        };
        for (index, node) in order.iter().enumerate() {
            let next = order
                .get(index + 1)
                .map_or(0, |next| GUEST + next * NODE_BYTES);
            let node = of_guest(*node);
            self.path.front_end.guest.write(node, &next.to_le_bytes());
            self.path
                .front_end
                .guest
                .write(node + 8, &1u64.to_le_bytes());
        }
        // This process follows the same list at its own addresses, which lie beside the others in each node.
        let base = self.path.front_end.guest.host_address(0);
        for (index, node) in order.iter().enumerate() {
            let next = order
                .get(index + 1)
                .map_or(0, |next| base + of_guest(*next));
            (self.path.front_end.guest).write(of_guest(*node) + 16, &next.to_le_bytes());
        }
        let first = (base + of_guest(order[0])) as *const u64;
        let arguments = [GUEST + order[0] * NODE_BYTES, 0, NODES + 1, 8];
        let rounds = self.rounds(JobKind::Walk, &arguments, |_| {
            let (mut node, mut sum) = (first, 0u64);
            while !node.is_null() {
                // SAFETY: the list was made of the guest's mapped nodes above, and no job runs.
                unsafe {
                    sum = sum.wrapping_add(node.add(1).read_volatile());
                    node = node.add(2).read_volatile() as *const u64;
                }
            }
            assert_eq!(black_box(sum), NODES);
        });
        [
            Figure::new(
                WALK,
                "ns",
                None,
                by(NODES, rounds.iter().map(|round| round.job)),
            )
            .with_cost(by(NODES, rounds.iter().map(|round| round.job_cost))),
            Figure::new(
                WALK_HERE,
                "ns",
                None,
                by(NODES, rounds.iter().map(|round| round.ours)),
            )
            .with_cost(by(NODES, rounds.iter().map(|round| round.ours_cost))),
        ]
    }

    /// A job that finds none of its pages, and a front end that maps each and lets it go on.
    fn fault(&mut self) -> Figure {
        let mut times = Vec::new();
        let started = Instant::now();
        let at = GUEST + 8 * BYTES;
        while times.len() < 5 || started.elapsed() < self.time {
            let front_end = &mut self.path.front_end;
            let before = Instant::now();
            let arguments = [at, FAULTS * PAGE, 0];
            let none = JobFlags::default();
            let report =
                front_end.run_job_with(JobKind::Fill, none, CONTEXT, &arguments, |fault| {
                    let page = fault.address.get() & !(PAGE - 1);
                    let target = GUEST_START + (page - at);
                    vec![
                        MapEntry::map(page, PAGE, target, MapFlags::PERMISSIONS, 12),
                        MapEntry::resume(fault.value.get()),
                    ]
                });
            times.push(before.elapsed());
            assert_eq!(end_status(&report), Status::Ok);
            assert_eq!(u64::from(report.faults.get()), FAULTS);
            let gone = front_end.change(CONTEXT, &[MapEntry::unmap(at, FAULTS * PAGE)]);
            assert_eq!(gone.status(), Status::Ok);
        }
        Figure::new(FAULT, "ns", None, by(FAULTS, times))
    }
}

/// The times of a round: what passed, and what was spent.
struct Round {
    ours: Duration,
    ours_cost: Duration,
    job: Duration,
    job_cost: Duration,
}

/// How fast jobs are beside this process.
fn beside(name: &str, goal: f64, rounds: &[Round]) -> Figure {
    let ratio = |ours: Duration, job: Duration| ours.as_secs_f64() / job.as_secs_f64();
    let ratios = rounds
        .iter()
        .map(|round| ratio(round.ours, round.job))
        .collect();
    let costs = (rounds.iter())
        .map(|round| ratio(round.ours_cost, round.job_cost))
        .collect();
    Figure::new(name, "ratio", Some(goal), ratios).with_cost(costs)
}

/// Nanoseconds of one of `count`.
fn by(count: u64, times: impl IntoIterator<Item = Duration>) -> Vec<f64> {
    let each = |time: Duration| time.as_secs_f64() * 1e9 / count as f64;
    times.into_iter().map(each).collect()
}
