// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program's processes as a target of moves.

use super::look;
use super::mover::Moved;
use super::pace::{Move, Seen, Side, Target, Usage};
use super::stall::Stall;
use super::tree::Tree;
use anyhow::Context;
use hmm_uapi::client::{Device, Error, MigrateRequest, Process};
use hmm_uapi::{Direction, MigrateFlags};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Most bytes of one call of a pass: between two calls the mover notices that the program has ended.
const CALL_BYTES: u64 = 64 << 20;

/// The program's processes, and what was done to them.
#[derive(Debug)]
pub(super) struct Processes {
    device: Device,
    tree: Tree,
    stall: Stall,
    stop: Arc<AtomicBool>,
    began: Instant,
    moved: Moved,
}

impl Processes {
    pub(super) fn new(device: Device, tree: Tree, stall: Stall, stop: Arc<AtomicBool>) -> Self {
        Self {
            device,
            tree,
            stall,
            stop,
            began: Instant::now(),
            moved: Moved::default(),
        }
    }

    /// Moves everything to the device in every pass. The program is left alone only for as long as a pass took: if
    /// its memory moved all the time, it would do nothing else than bring it back.
    pub(super) fn stress(&mut self, interval: Duration) -> anyhow::Result<()> {
        while !self.is_stopped() {
            let began = Instant::now();
            for pid in self.alive()? {
                let looked = Instant::now();
                let populated = look::populated(pid)?;
                self.moved.look_time += looked.elapsed();
                for range in look::present(&populated, CALL_BYTES) {
                    if self.is_stopped() {
                        return Ok(());
                    }
                    let to = Side::Device;
                    self.migrate(&Move { pid, range, to })?;
                }
            }
            self.moved.passes += 1;
            self.sleep(interval.max(began.elapsed()));
        }
        Ok(())
    }

    /// Ends moving; what was done, and the device.
    pub(super) fn finish(mut self, error: Option<String>) -> (Device, Moved) {
        self.moved.error = error;
        (self.device, self.moved)
    }

    fn alive(&mut self) -> anyhow::Result<Vec<i32>> {
        let alive = self.tree.update().context("cannot read /proc")?;
        self.moved.processes = self.tree.seen();
        Ok(alive)
    }
}

impl Target for Processes {
    type Error = anyhow::Error;

    fn now(&mut self) -> Duration {
        self.began.elapsed()
    }

    fn usage(&mut self) -> anyhow::Result<Usage> {
        let faults = self.device.stats()?.cpu_faults;
        Ok(Usage {
            cpu: self.tree.processor_time(),
            stall: self.stall.total(faults),
        })
    }

    fn look(&mut self, found: &mut Vec<Seen>) -> anyhow::Result<()> {
        let began = Instant::now();
        for pid in self.alive()? {
            look::blocks(pid, &look::populated(pid)?, found);
        }
        self.moved.passes += 1;
        self.moved.look_time += began.elapsed();
        Ok(())
    }

    fn migrate(&mut self, range: &Move) -> anyhow::Result<u64> {
        let Some(process) = Process::from_id(range.pid) else {
            return Ok(0);
        };
        let request = MigrateRequest {
            process,
            range: range.range.clone(),
            direction: match range.to {
                Side::Device => Direction::ToDevice,
                Side::System => Direction::ToSystem,
            },
            flags: MigrateFlags::default(),
        };
        let began = Instant::now();
        let result = self.device.migrate_all(&request);
        self.moved.move_time += began.elapsed();
        let report = match result {
            Ok(report) => report,
            // The process ended meanwhile.
            Err(Error::NoProcess { .. }) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        match range.to {
            Side::Device => self.moved.skipped += report.skipped,
            Side::System => {
                self.moved.bytes_brought_back += report.pages_moved * self.device.page_bytes();
            }
        }
        if report.pages_moved > 0 {
            let resident = self.device.stats()?.resident_bytes;
            self.moved.peak_resident_bytes = self.moved.peak_resident_bytes.max(resident);
        }
        Ok(report.pages_moved)
    }

    fn sleep(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }

    fn is_stopped(&mut self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}
