// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `hmmctl record` wrote. It is the text of the kernel's trace, so that other tools can read it, with two kinds of lines
//! more: marks in the trace that say where memory was, and comments at the end with what was counted.
//!
//! | line | meaning |
//! | --- | --- |
//! | `# hmm-record 1` | the first line |
//! | `# command TEXT` | what was run |
//! | `# memory_bytes N` | device memory |
//! | `# device NAME` | the device that it is about, as events name it, where there are several |
//! | `# counter NAME N` | how much a counter grew |
//! | `# time STEP trigger=T count=N sum_ns=N p50_ns<N …` | debugfs' `times`, since the driver was loaded |
//! | `… hmm_look: pid=N name=NAME` | the process was looked at, and these of its blocks have changed since: |
//! | `… hmm_blocks: pid=N ADDRESS:DEVICE:SYSTEM:HUGE …` | pages of a block of 2 MiB on each side, and whether they are mapped as huge pages |
//! | `… hmm_case: name=NAME` | a case of the tests begins |
//! | `… hmm_case_end: name=NAME result=RESULT` | it has ended |
//!
//! A trace without these lines is a recording with events only.

use crate::guest::{self, GuestEvent};
use serde::Serialize;
use std::collections::BTreeMap;
use thiserror::Error;

/// The first line.
const MAGIC: &str = "# hmm-record ";
/// The version that this reads.
const VERSION: u32 = 1;

/// It cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// Another version.
    #[error("the recording has version {found:?} and this program reads version {VERSION}")]
    Version {
        /// What it says.
        found: String,
    },
    /// Nothing of the driver.
    #[error(
        "there is no event of the driver and no look at memory in it; make it with 'hmmctl record', or turn the events of virtio_hmm on"
    )]
    Empty,
}

/// What was recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// What was run, if it is known.
    pub command: String,
    /// Device memory, bytes; 0 if it is not known.
    pub memory_bytes: u64,
    /// The driver's events, in the order of time.
    pub events: Vec<GuestEvent>,
    /// Events that the kernel had no room for.
    pub lost: u64,
    /// Looks at the memory of processes, in the order of time.
    pub looks: Vec<Look>,
    /// Cases of the tests, in the order of time.
    pub cases: Vec<Case>,
    /// How much counters grew.
    pub counters: BTreeMap<String, u64>,
    /// How long steps took.
    pub times: Vec<StepTime>,
}

/// A look at the memory of a process.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// On the guest's clock, microseconds.
    pub time: f64,
    /// The process.
    pub pid: u64,
    /// Its program.
    pub name: String,
    /// The blocks that are not as in the look before.
    pub changes: Vec<Block>,
}

/// A case of the tests.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// When it began, on the guest's clock, microseconds.
    pub start: f64,
    /// When it ended; not before it began.
    pub end: f64,
    /// How it ended: `ok`, or what the recorder says. Empty for a case that did not end.
    pub result: String,
}

/// A block of 2 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its address.
    pub address: u64,
    /// Pages on the device.
    pub device_pages: u32,
    /// Pages in system memory.
    pub system_pages: u32,
    /// Whether they are mapped as huge pages.
    pub is_huge: bool,
}

/// How long a step took for a trigger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepTime {
    /// The step: `setup`, `wait`, …
    pub step: String,
    /// Why it was taken.
    pub trigger: String,
    /// How often.
    pub count: u64,
    /// In all, nanoseconds.
    pub sum_ns: u64,
    /// Half took less, nanoseconds.
    pub p50_ns: u64,
    /// 99 % took less, nanoseconds.
    pub p99_ns: u64,
}

impl Recording {
    /// Reads one. Only events of `device` are taken; without it, of the device that the recording names, or else of the
    /// one that the first event is of.
    ///
    /// # Errors
    /// It has another version, or nothing of the driver.
    pub fn read(text: &str, device: Option<&str>) -> Result<Self, ReadError> {
        let first = text.lines().next().unwrap_or_default();
        if let Some(version) = first.strip_prefix(MAGIC)
            && version.trim().parse() != Ok(VERSION)
        {
            let found = version.trim().to_owned();
            return Err(ReadError::Version { found });
        }
        let events = |device: Option<&str>| {
            device.map_or_else(Vec::new, |device| guest::parse(text, device))
        };
        let named = (text.lines()).find_map(|line| line.strip_prefix("# device "));
        let mut recording = Self {
            events: events(device.or(named)),
            ..Self::default()
        };
        if device.is_none() && recording.events.is_empty() {
            // A device that was plugged in again has another name.
            recording.events = events(guest::first_device(text));
        }
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                recording.add_comment(comment);
            } else if let Some((_, rest)) = line.split_once("[LOST ") {
                let count = rest.split_whitespace().next().and_then(|n| n.parse().ok());
                recording.lost = recording.lost.saturating_add(count.unwrap_or(1));
            } else if let Some(mark) = guest::mark(line) {
                recording.add_mark(&mark);
            }
        }
        // Kernels write the events of each processor by itself.
        recording.events.sort_by(|a, b| a.time.total_cmp(&b.time));
        recording.looks.sort_by(|a, b| a.time.total_cmp(&b.time));
        recording.cases.sort_by(|a, b| a.start.total_cmp(&b.start));
        let is_empty =
            recording.events.is_empty() && recording.looks.is_empty() && recording.cases.is_empty();
        if is_empty {
            return Err(ReadError::Empty);
        }
        Ok(recording)
    }

    fn add_comment(&mut self, comment: &str) {
        let Some((word, rest)) = comment.split_once(' ') else {
            return;
        };
        match word {
            "command" => self.command = rest.to_owned(),
            "memory_bytes" => self.memory_bytes = rest.parse().unwrap_or(0),
            "counter" => {
                if let Some((name, Ok(count))) =
                    rest.split_once(' ').map(|(name, n)| (name, n.parse()))
                {
                    self.counters.insert(name.to_owned(), count);
                }
            }
            "time" => self.times.extend(StepTime::parse(rest)),
            _ => {}
        }
    }

    fn add_mark(&mut self, mark: &GuestEvent) {
        match mark.name.as_str() {
            "hmm_case" => self.cases.push(Case {
                name: mark.word("name").to_owned(),
                start: mark.time,
                end: mark.time,
                result: String::new(),
            }),
            "hmm_case_end" => {
                let is_it =
                    |case: &&mut Case| case.name == mark.word("name") && case.result.is_empty();
                if let Some(case) = self.cases.iter_mut().rev().find(is_it) {
                    case.end = mark.time.max(case.start);
                    mark.word("result").clone_into(&mut case.result);
                }
            }
            _ => self.add_look(mark),
        }
    }

    fn add_look(&mut self, mark: &GuestEvent) {
        let Some(pid) = mark.number("pid") else {
            return;
        };
        if mark.name == "hmm_look" {
            self.looks.push(Look {
                time: mark.time,
                pid,
                name: mark.word("name").to_owned(),
                changes: Vec::new(),
            });
        } else if mark.name == "hmm_blocks"
            && let Some(look) = self.looks.iter_mut().rev().find(|look| look.pid == pid)
        {
            let blocks = mark.word("").split(' ').filter_map(Block::parse);
            look.changes.extend(blocks);
        }
    }
}

impl Block {
    /// `ADDRESS:DEVICE:SYSTEM:HUGE`
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(':');
        let block = Self {
            address: u64::from_str_radix(words.next()?, 16).ok()?,
            device_pages: words.next()?.parse().ok()?,
            system_pages: words.next()?.parse().ok()?,
            is_huge: words.next()? == "1",
        };
        words.next().is_none().then_some(block)
    }
}

impl StepTime {
    /// `STEP trigger=T count=N sum_ns=N p50_ns<N p90_ns<N p99_ns<N`
    fn parse(text: &str) -> Option<Self> {
        let (step, rest) = text.split_once(' ')?;
        let field = |name: &str| {
            (rest.split_whitespace())
                .find_map(|word| word.strip_prefix(name)?.strip_prefix(['=', '<']))
        };
        let number = |name: &str| field(name)?.parse().ok();
        Some(Self {
            step: step.to_owned(),
            trigger: field("trigger")?.to_owned(),
            count: number("count")?,
            sum_ns: number("sum_ns")?,
            p50_ns: number("p50_ns")?,
            p99_ns: number("p99_ns")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, ReadError, Recording};

    const TEXT: &str = "\
# hmm-record 1
# command sort big.txt
# memory_bytes 1048576
 hmmctl-9 [000] ..... 1.000000: tracing_mark_write: hmm_look: pid=7 name=sort
 hmmctl-9 [000] ..... 1.000001: tracing_mark_write: hmm_blocks: pid=7 200000:512:0:1 400000:3:4:0 nonsense
 sort-7   [001] ..... 0.900000: vhmm_fault: dev=virtio0 trigger=cpu_fault address=0x200000 result=ok bytes=4096 ns=50000
CPU:0 [LOST 5 EVENTS]
# device virtio0
 agent-1 [000] ..... 0.800000: tracing_mark_write: hmm_case: name=fork/a
 agent-1 [000] ..... 1.100000: tracing_mark_write: hmm_case_end: name=fork/a result=ok
 agent-1 [000] ..... 1.100000: tracing_mark_write: hmm_case: name=fork/b
 sort-7   [001] ..... 0.900000: vhmm_fault: dev=virtio1 trigger=cpu_fault address=0x200000 result=ok bytes=4096 ns=50000
# counter cpu_faults 12
# time fault trigger=cpu_fault count=2 sum_ns=100 p50_ns<64 p90_ns<64 p99_ns<128
# time fault trigger=cpu_fault from_ns=32 below_ns=64 count=2
";

    #[test]
    fn all_of_it_is_read() {
        let recording = Recording::read(TEXT, None).unwrap();
        assert_eq!(recording.command, "sort big.txt");
        assert_eq!(recording.memory_bytes, 1 << 20);
        assert_eq!((recording.events.len(), recording.lost), (1, 5));
        assert_eq!(recording.counters["cpu_faults"], 12);
        let cases: Vec<_> = (recording.cases.iter())
            .map(|case| (&*case.name, case.start, case.end, &*case.result))
            .collect();
        assert_eq!(
            cases,
            [
                ("fork/a", 800_000.0, 1_100_000.0, "ok"),
                ("fork/b", 1_100_000.0, 1_100_000.0, "")
            ]
        );
        let [look] = &recording.looks[..] else {
            panic!("{:?}", recording.looks);
        };
        assert_eq!((look.pid, look.name.as_str()), (7, "sort"));
        let block = |address, device_pages, system_pages, is_huge| Block {
            address,
            device_pages,
            system_pages,
            is_huge,
        };
        assert_eq!(
            look.changes,
            [
                block(0x20_0000, 512, 0, true),
                block(0x40_0000, 3, 4, false)
            ]
        );
        let [time] = &recording.times[..] else {
            panic!("{:?}", recording.times);
        };
        assert_eq!((time.count, time.sum_ns, time.p99_ns), (2, 100, 128));
    }

    #[test]
    fn other_versions_and_traces_of_something_else_are_refused() {
        let newer = TEXT.replace("hmm-record 1", "hmm-record 2");
        assert_eq!(
            Recording::read(&newer, None),
            Err(ReadError::Version {
                found: "2".to_owned()
            })
        );
        assert_eq!(
            Recording::read("# tracer: nop\n", None),
            Err(ReadError::Empty)
        );
    }

    #[test]
    fn a_plain_trace_will_do() {
        let line = TEXT
            .lines()
            .find(|line| line.contains("vhmm_fault"))
            .unwrap();
        let recording = Recording::read(line, None).unwrap();
        assert_eq!(recording.events.len(), 1);
        assert_eq!(
            Recording::read(line, Some("virtio0")),
            Ok(recording.clone())
        );
        assert_eq!(
            Recording::read(line, Some("virtio1")),
            Err(ReadError::Empty)
        );
        assert!(recording.looks.is_empty());
    }
}
