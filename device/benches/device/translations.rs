// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Page tables: how fast they change, how long an invalidation takes beside jobs that run, and what memory they take.

use std::time::{Duration, Instant};

use hmm_front_end::{FrontEnd, Layout, Process};
use hmm_protocol::{BatchFlags, ControlKind, JobFlags, JobKind, MapEntry, MapFlags, Status};

use crate::{path::DEVICE, report::Figure};

const PAGE: u64 = 4096;
const BLOCK: u64 = 2 << 20;
const MEMORY: u64 = 64 << 20;
const CONTEXT: u32 = 1;
/// Another context.
const OTHER: u32 = 2;
/// Entries of a batch, as many as the device takes.
const ENTRIES: u64 = 1024;
/// The virtual addresses in which jobs run: device memory, again and again.
const BUSY: u64 = 1 << 40;
const BUSY_BYTES: u64 = 64 << 30;
/// Most rounds of a figure: quantiles need no more.
const ROUNDS: usize = 20_000;

const RATES: &str = "page tables: map, unmap";
const MAP: &str = "page tables: map one page";
const INVALIDATE: &str = "page tables: invalidate";
const BYTES: &str = "page tables: bytes by GiB";

/// Runs the figures whose name contains `only`; `time` for each.
pub(crate) fn measure(time: Duration, only: &str) -> Vec<Figure> {
    let mut figures = Vec::new();
    if RATES.contains(only) {
        let mut bench = Bench::start(time);
        for (what, len, shift, stride) in [
            ("2 MiB page", BLOCK, 21, BLOCK),
            ("4 KiB page", PAGE, 12, PAGE),
            ("512 pages of 4 KiB", BLOCK, 12, BLOCK),
        ] {
            figures.extend(bench.rate(what, len, shift, stride));
        }
    }
    if INVALIDATE.contains(only) || MAP.contains(only) {
        // What jobs take of the processors, and not of the context.
        let elsewhere = ("two jobs of another context", 2, OTHER);
        for (beside, jobs, context) in [("no job", 0, CONTEXT), ("two jobs", 2, CONTEXT), elsewhere]
        {
            figures.extend(Bench::start(time).invalidate(beside, jobs, context));
        }
    }
    if BYTES.contains(only) {
        for (what, shift) in [("2 MiB pages", 21), ("4 KiB pages", 12)] {
            figures.push(Bench::start(time).bytes(what, shift));
        }
    }
    figures
}

struct Bench {
    process: Process,
    front_end: FrontEnd,
    time: Duration,
}

impl Bench {
    /// A device with two contexts that map nothing.
    fn start(time: Duration) -> Self {
        let memory = MEMORY.to_string();
        let arguments = ["--memory", &memory, "--page-tables", "2G", "--prefault"];
        let process = Process::start(DEVICE, &arguments);
        let mut front_end = FrontEnd::start(&process.socket(), 1, &Layout::default());
        front_end.open();
        let create = ControlKind::ContextCreate;
        for context in [CONTEXT, OTHER] {
            assert_eq!(front_end.ask(create, u64::from(context), 0), Status::Ok);
        }
        Self {
            process,
            front_end,
            time,
        }
    }

    /// Sends a batch and returns the time until its completion is there.
    fn change(&mut self, entries: &[MapEntry]) -> Duration {
        self.change_in(CONTEXT, entries).0
    }

    /// The same for a context; also what the device says of how long it took, nanoseconds.
    fn change_in(&mut self, context: u32, entries: &[MapEntry]) -> (Duration, u32) {
        let queue = self.front_end.mmu_queue();
        let request = self
            .front_end
            .map_batch(BatchFlags::default(), context, entries);
        let started = Instant::now();
        let answer = self.front_end.execute_on(queue, &request);
        let time = started.elapsed();
        assert_eq!(answer.status(), Status::Ok);
        (time, answer.completion.device_ns.get())
    }

    /// The times of one entry that maps `len` bytes in pages of `1 << shift` bytes, and of one that unmaps them.
    fn rate(&mut self, what: &str, len: u64, shift: u8, stride: u64) -> [Figure; 2] {
        let maps: Vec<MapEntry> = (0..ENTRIES)
            .map(|index| {
                // Two neighbours are never one page list, wherever they are in device memory.
                let target = (index * 2 * len) % MEMORY / len * len;
                MapEntry::map(index * stride, len, target, MapFlags::ALL, shift)
            })
            .collect();
        let unmaps: Vec<MapEntry> = (0..ENTRIES)
            .map(|index| MapEntry::unmap(index * stride, len))
            .collect();
        let (mut mapped, mut unmapped) = (Vec::new(), Vec::new());
        let until = Instant::now() + self.time;
        while Instant::now() < until {
            for (entries, times) in [(&maps, &mut mapped), (&unmaps, &mut unmapped)] {
                let time = self.change(entries);
                times.push(time.as_nanos() as f64 / ENTRIES as f64);
            }
        }
        [("map", mapped), ("unmap", unmapped)].map(|(op, times)| {
            let name = format!("page tables: {op} {what}");
            Figure::new(name, "ns", None, times)
        })
    }

    /// What the device takes for a batch, nanoseconds. To see the completion takes this process longer than that.
    fn device_time(&mut self, entries: &[MapEntry]) -> f64 {
        f64::from(self.change_in(CONTEXT, entries).1)
    }

    /// What the device takes for a batch that maps a page, and for one that unmaps it, while `jobs` jobs of context `context`
    /// run.
    fn invalidate(&mut self, beside: &str, jobs: u64, context: u32) -> [Figure; 4] {
        let busy: Vec<MapEntry> = (0..BUSY_BYTES / MEMORY)
            .map(|index| MapEntry::map(BUSY + index * MEMORY, MEMORY, 0, MapFlags::ALL, 21))
            .collect();
        self.change_in(context, &busy);
        let front_end = &mut self.front_end;
        let running: Vec<u64> = (0..jobs)
            .map(|_| {
                let arguments = [BUSY, BUSY_BYTES, 0];
                let kind = JobKind::Crc32c;
                let job = front_end.job(kind, JobFlags::default(), context, &arguments);
                assert_eq!(front_end.submit_job(&job).status(), Status::Ok);
                job.cookie.get()
            })
            .collect();
        let (mut times, mut map_times) = (Vec::new(), Vec::new());
        let until = Instant::now() + self.time;
        while Instant::now() < until && times.len() < ROUNDS {
            let map = MapEntry::map(0, PAGE, 0, MapFlags::ALL, 12);
            map_times.push(self.device_time(&[map]));
            times.push(self.device_time(&[MapEntry::unmap(0, PAGE)]));
        }
        for cookie in running {
            let status = self.front_end.ask(ControlKind::JobCancel, cookie, 0);
            assert_eq!(status, Status::Ok);
        }
        let [map_middle, map_high] = quantiles(&format!("{MAP} beside {beside}"), map_times);
        let [middle, high] = quantiles(&format!("{INVALIDATE} beside {beside}"), times);
        [map_middle, map_high, middle, high]
    }

    /// What the process grows by when it maps many GiB.
    fn bytes(&mut self, what: &str, shift: u8) -> Figure {
        let gibibytes = 64;
        let entries: Vec<MapEntry> = (0..gibibytes << 30 >> 26)
            .map(|index| MapEntry::map(index * MEMORY, MEMORY, 0, MapFlags::ALL, shift))
            .collect();
        // The first map brings what is not of page tables.
        self.change(&entries[..1]);
        let before = self.resident_bytes();
        for part in entries[1..].chunks(ENTRIES as usize) {
            self.change(part);
        }
        let grown = self.resident_bytes() - before;
        let mapped = (entries.len() - 1) as f64 * MEMORY as f64 / (1u64 << 30) as f64;
        Figure::new(
            format!("{BYTES}, {what}"),
            "bytes",
            None,
            vec![grown / mapped],
        )
    }

    /// Bytes of memory that are the process's alone.
    fn resident_bytes(&self) -> f64 {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let words = line.and_then(|line| line.split_whitespace().next());
        let kibibytes: u64 = words.and_then(|word| word.parse().ok()).expect("a number");
        kibibytes as f64 * 1024.0
    }
}

/// The median of some times in nanoseconds, and what 99 of 100 are below.
fn quantiles(name: &str, mut times: Vec<f64>) -> [Figure; 2] {
    times.sort_unstable_by(f64::total_cmp);
    let high = times[times.len() * 99 / 100];
    [
        Figure::new(format!("{name}, p50"), "ns", None, times),
        Figure::new(format!("{name}, p99"), "ns", None, vec![high]),
    ]
}
