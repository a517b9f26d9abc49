// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where samples come from: the device, or a recording.

use super::sample::{ProcessSample, Sample};
use anyhow::Context;
use hmm_uapi::Stats;
use hmm_uapi::client::{Device, Presence, Process, Skipped};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Samples in the order of time.
pub(crate) trait Source {
    /// Waits for the next sample; `None`: there are no more.
    fn next(&mut self) -> anyhow::Result<Option<Sample>>;

    /// How long it is until the next sample is due.
    fn due_in(&self) -> Duration;
}

/// The device.
pub(crate) struct Live {
    device: Device,
    node: String,
    interval: Duration,
    memory_bytes: u64,
    begin: Instant,
    next: Instant,
    /// Shown while the device is lost, when calls would wait.
    last: Sample,
}

impl Live {
    /// Opens the device.
    pub(crate) fn open(node: &Path, interval: Duration) -> anyhow::Result<Self> {
        let device = Device::open(node)?;
        let memory_bytes = device.info()?.memory_bytes;
        let begin = Instant::now();
        Ok(Self {
            device,
            node: node.display().to_string(),
            interval,
            memory_bytes,
            begin,
            next: begin,
            last: Sample::default(),
        })
    }

    fn take(&mut self) -> anyhow::Result<Sample> {
        let presence = self.device.presence()?;
        let mut sample = Sample {
            seconds: self.begin.elapsed().as_secs_f64(),
            node: self.node.clone(),
            device: presence.name().to_owned(),
            memory_bytes: self.memory_bytes,
            ..self.last.clone()
        };
        if presence == Presence::Present {
            let stats = self.device.stats()?;
            sample.counters = named(&stats);
            sample
                .counters
                .extend(crate::debugfs::counters(Path::new(&self.node)));
            sample.skipped = Skipped::new(stats.pages_skipped)
                .named()
                .map(|(name, pages)| (name.to_owned(), pages))
                .collect();
            sample.processes = processes(&self.device);
        }
        self.last = sample.clone();
        Ok(sample)
    }
}

impl Source for Live {
    fn next(&mut self) -> anyhow::Result<Option<Sample>> {
        std::thread::sleep(self.due_in());
        self.next = Instant::now() + self.interval;
        match self.take() {
            // The device went away between two calls.
            Err(_) if matches!(self.device.presence(), Ok(Presence::Gone | Presence::Lost)) => {
                self.last.device = self.device.presence()?.name().to_owned();
                Ok(Some(self.last.clone()))
            }
            sample => sample.map(Some),
        }
    }

    fn due_in(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }
}

/// The counters of STATS by name.
pub(crate) fn named(stats: &Stats) -> BTreeMap<String, u64> {
    [
        ("bytes_to_device", stats.bytes_to_device),
        ("bytes_to_system", stats.bytes_to_system),
        ("bytes_by_fault", stats.bytes_by_fault),
        ("bytes_by_eviction", stats.bytes_by_eviction),
        ("resident_bytes", stats.resident_bytes),
        ("peak_resident_bytes", stats.peak_resident_bytes),
        ("cpu_faults", stats.cpu_faults),
        ("cpu_faults_failed", stats.cpu_faults_failed),
        ("batches", stats.batches),
        ("doorbells", stats.doorbells),
        ("copy_errors", stats.copy_errors),
        ("timeouts", stats.timeouts),
        ("protocol_errors", stats.protocol_errors),
    ]
    .map(|(name, count)| (name.to_owned(), count))
    .into()
}

/// The processes with device memory that the caller may ask for, the largest first. Processes end all the time, and
/// kernel threads have no memory: neither is an error.
fn processes(device: &Device) -> Vec<ProcessSample> {
    let mut found: Vec<ProcessSample> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| {
            let limit = device.limit(Process::from_id(pid)?).ok()?;
            (limit.resident_bytes > 0).then(|| ProcessSample {
                pid,
                name: program(pid),
                resident_bytes: limit.resident_bytes,
                limit_bytes: limit.limit_bytes,
            })
        })
        .collect();
    found.sort_by_key(|process| (u64::MAX - process.resident_bytes, process.pid));
    found
}

/// The name of a process's program. It is the program's to choose, so what would act on a terminal is taken out.
fn program(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    (String::from_utf8_lossy(&name).trim_end().chars())
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

/// What an earlier `top --json` printed. A terminal gets it at the pace of the interval.
pub(crate) struct Replay {
    interval: Duration,
    lines: Box<dyn Iterator<Item = std::io::Result<String>>>,
    path: PathBuf,
    number: usize,
}

impl Replay {
    /// Opens a recording.
    pub(crate) fn open(path: &Path, interval: Duration) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            interval,
            lines: Box::new(BufReader::new(file).lines()),
            path: path.to_owned(),
            number: 0,
        })
    }
}

impl Source for Replay {
    fn next(&mut self) -> anyhow::Result<Option<Sample>> {
        let Some(line) = self.lines.next() else {
            return Ok(None);
        };
        self.number += 1;
        let line = line.with_context(|| format!("cannot read {}", self.path.display()))?;
        serde_json::from_str(&line).map(Some).with_context(|| {
            format!(
                "line {} of {} is no sample of 'hmmctl top --json'",
                self.number,
                self.path.display()
            )
        })
    }

    fn due_in(&self) -> Duration {
        self.interval
    }
}
