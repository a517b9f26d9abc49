// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The thread that moves the program's memory, pass after pass.

use super::settle::Settle;
use super::tree::Tree;
use crate::cli::Policy;
use crate::maps::{self, Mapping};
use anyhow::Context;
use hmm_uapi::client::{Device, Error, MigrateRequest, Process, Skipped};
use hmm_uapi::{Direction, MigrateFlags};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Most bytes of one call: between two calls the mover notices that the program has ended.
const CALL_BYTES: u64 = 64 << 20;

/// What the mover did.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Passes over the program's memory.
    pub(super) passes: u64,
    /// Processes that were seen.
    pub(super) processes: u64,
    /// Pages that did not move, each time they did not.
    pub(super) skipped: Skipped,
    /// The most device memory in use that was seen after a move, bytes.
    pub(super) peak_resident_bytes: u64,
    /// Why moving ended before the program, if it did.
    pub(super) error: Option<String>,
}

/// The running thread.
#[derive(Debug)]
pub(super) struct Mover {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Device, Moved)>,
}

impl Mover {
    /// Starts moving the memory of a process and its descendants.
    pub(super) fn start(
        device: Device,
        root: i32,
        policy: Policy,
        interval: Duration,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut passes = Passes {
            device,
            tree: Tree::new(root),
            settle: match policy {
                Policy::ToDevice => Some(Settle::default()),
                Policy::Churn => None,
            },
            stop: Arc::clone(&stop),
            moved: Moved::default(),
        };
        let thread = thread::Builder::new()
            .name("mover".to_owned())
            .spawn(move || {
                passes.run(interval);
                (passes.device, passes.moved)
            })
            .context("cannot start a thread")?;
        Ok(Self { stop, thread })
    }

    /// Stops moving, waits for the call in flight, and gives the device back.
    pub(super) fn stop(self) -> (Device, Moved) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        match self.thread.join() {
            Ok(done) => done,
            // The panic was that thread's; it goes on here and is not swallowed.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

struct Passes {
    device: Device,
    tree: Tree,
    settle: Option<Settle>,
    stop: Arc<AtomicBool>,
    moved: Moved,
}

impl Passes {
    fn run(&mut self, interval: Duration) {
        while !self.is_stopped() {
            let started = Instant::now();
            if let Err(error) = self.pass() {
                // The program goes on without being moved: that is not its fault.
                self.moved.error = Some(format!("{error:#}"));
                return;
            }
            self.sleep(pause(interval, started.elapsed()));
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn sleep(&self, interval: Duration) {
        let until = Instant::now() + interval;
        while !self.is_stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }

    /// Moves the private memory of all processes of the program once.
    fn pass(&mut self) -> anyhow::Result<()> {
        let processes = self.tree.update().context("cannot read /proc")?;
        self.moved.processes = self.tree.seen();
        for pid in processes {
            // A process that has ended has no file, or one without a line.
            let Ok(mappings) = maps::of_process(pid) else {
                continue;
            };
            for mapping in mappings.iter().filter(|m| m.may_hold_private_memory()) {
                if !self.move_mapping(pid, mapping)? {
                    break;
                }
            }
            if self.is_stopped() {
                break;
            }
        }
        if let Some(settle) = &mut self.settle {
            settle.end_pass();
        }
        self.moved.passes += 1;
        Ok(())
    }

    /// Moves one mapping; whether the process is worth going on with.
    fn move_mapping(&mut self, pid: i32, mapping: &Mapping) -> anyhow::Result<bool> {
        let Some(process) = Process::from_id(pid) else {
            return Ok(false);
        };
        if let Some(settle) = &mut self.settle
            && !settle.is_due(pid, &mapping.range)
        {
            return Ok(true);
        }
        let mut pages_moved = 0;
        for range in calls(&mapping.range) {
            if self.is_stopped() {
                return Ok(false);
            }
            let request = MigrateRequest {
                process,
                range,
                direction: Direction::ToDevice,
                flags: MigrateFlags::default(),
            };
            match self.device.migrate_all(&request) {
                Ok(report) => {
                    pages_moved += report.pages_moved;
                    self.moved.skipped += report.skipped;
                }
                // The process ended meanwhile.
                Err(Error::NoProcess { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        if pages_moved > 0 {
            let resident = self.device.stats()?.resident_bytes;
            self.moved.peak_resident_bytes = self.moved.peak_resident_bytes.max(resident);
        }
        if let Some(settle) = &mut self.settle {
            settle.moved(pid, &mapping.range, pages_moved);
        }
        Ok(true)
    }
}

/// How long to leave the program alone after a pass: not less than the pass took. A program whose memory is moved all
/// the time does little else than bring it home.
fn pause(interval: Duration, pass: Duration) -> Duration {
    interval.max(pass)
}

/// A range in pieces of at most [`CALL_BYTES`].
fn calls(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let Range { mut start, end } = *range;
    std::iter::from_fn(move || {
        if start >= end {
            return None;
        }
        let cut = end.min(start.saturating_add(CALL_BYTES));
        Some(std::mem::replace(&mut start, cut)..cut)
    })
}

#[cfg(test)]
mod tests {
    use super::{CALL_BYTES, calls, pause};
    use std::time::Duration;

    #[test]
    fn calls_cover_the_range_once() {
        let end = 0x1000 + 2 * CALL_BYTES + 0x3000;
        assert!(calls(&(0x1000..end)).eq([
            0x1000..0x1000 + CALL_BYTES,
            0x1000 + CALL_BYTES..0x1000 + 2 * CALL_BYTES,
            0x1000 + 2 * CALL_BYTES..end
        ]));
        assert_eq!(calls(&(0x1000..0x1000)).count(), 0);
    }

    #[test]
    fn a_long_pass_has_a_long_pause() {
        let milliseconds = Duration::from_millis;
        assert_eq!(pause(milliseconds(100), milliseconds(3)), milliseconds(100));
        assert_eq!(pause(milliseconds(5), milliseconds(700)), milliseconds(700));
    }
}
