// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Processes that are killed with pages on a device while the device evicts them.
//!
//! Evicting by page finds the mappings through the `anon_vma` of the process, which goes with the last process that has
//! it. A driver that does not hold it uses freed memory; the kernel's own test driver does that.

use super::gate::Gate;
use super::memory::Memory;
use super::process::{Child, fork};
use anyhow::{Context, Result, bail};
use hmm_uapi::client::Device;
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering};

/// Processes that are alive at a time.
const PROCESSES: u64 = 4;
/// A storm on some device.
pub(in crate::cases) struct Storm<'a> {
    /// Makes the memory of a process.
    pub(in crate::cases) memory: fn() -> Result<Memory>,
    /// Brings memory of the calling process to the device. A device that is not there at the moment is no error.
    pub(in crate::cases) to_device: &'a dyn Fn(&Memory) -> Result<()>,
    /// Begins jobs on memory of the calling process, which end with what this returns. Without a device there are none.
    pub(in crate::cases) begin_jobs: &'a dyn Fn(&Memory) -> Result<Option<Device>>,
    /// Evicts everything that is on the device.
    pub(in crate::cases) evict: &'a (dyn Fn() -> Result<()> + Sync),
    /// Whether there is nothing more to see.
    pub(in crate::cases) is_over: &'a dyn Fn() -> Result<bool>,
}

impl Storm<'_> {
    /// Kills [`PROCESSES`] processes so many times. Returns how many were killed, which is fewer if it was over before.
    pub(in crate::cases) fn rage(&self, rounds: u32) -> Result<u64> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let evictor = scope.spawn(|| -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    (self.evict)()?;
                }
                Ok(())
            });
            let killed = self.kill(rounds);
            stop.store(true, Ordering::Relaxed);
            match evictor.join() {
                Ok(result) => result.context("evicting")?,
                Err(_) => bail!("the evictor panicked"),
            }
            killed
        })
    }

    fn kill(&self, rounds: u32) -> Result<u64> {
        let mut killed = 0;
        for _ in 0..rounds {
            if (self.is_over)()? {
                break;
            }
            let ready = Gate::new()?;
            let mut children = Vec::new();
            for seed in 0..PROCESSES {
                children.push(self.process(seed, &ready)?);
            }
            for _ in 0..PROCESSES {
                ready.wait()?;
            }
            for child in children {
                child.signal(Signal::KILL)?;
                child.wait_for_signal(Signal::KILL)?;
                killed += 1;
            }
        }
        Ok(killed)
    }

    /// A process that brings its memory to the device again and again, and checks it. Its own child shares the memory.
    fn process(&self, seed: u64, ready: &Gate) -> Result<Child> {
        fork(|| {
            let mut memory = (self.memory)()?;
            memory.fill(seed);
            let pages = memory.pages();
            (self.to_device)(&memory)?;
            let mut jobs = (self.begin_jobs)(&memory)?;
            ready.open()?;
            loop {
                memory.check_pages(0..pages / 4, seed)?;
                (self.to_device)(&memory)?;
                drop(jobs.take());
                jobs = (self.begin_jobs)(&memory)?;
            }
        })
    }
}
