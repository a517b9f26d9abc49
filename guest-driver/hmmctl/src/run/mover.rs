// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The thread that moves the program's memory.

use super::pace::Pacer;
use super::processes::Processes;
use super::stall::Stall;
use super::tree::Tree;
use crate::cli::Policy;
use anyhow::Context;
use hmm_uapi::client::{Device, Skipped};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What the mover did.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Looks at the program's memory.
    pub(super) passes: u64,
    /// Time that the looks took.
    pub(super) look_time: Duration,
    /// Time that the moves took, in both directions.
    pub(super) move_time: Duration,
    /// Processes that were seen.
    pub(super) processes: u64,
    /// Pages that did not move to the device, each time they did not.
    pub(super) skipped: Skipped,
    /// Bytes that were migrated back because the program fetched them page by page.
    pub(super) bytes_brought_back: u64,
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
        stall: Stall,
        root: i32,
        policy: Policy,
        interval: Duration,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut processes = Processes::new(device, Tree::new(root), stall, Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("mover".to_owned())
            .spawn(move || {
                let result = match policy.rules() {
                    Some(rules) => Pacer::new(rules, interval).run(&mut processes),
                    None => processes.stress(interval),
                };
                // The program goes on without being moved: an error here is not its fault.
                processes.finish(result.err().map(|error| format!("{error:#}")))
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
