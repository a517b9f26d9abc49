// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The threads that execute jobs.
//!
//! An executor takes a part of a job, works on it in sections of [`SECTION`], and takes another part after [`TURN`]. Between two
//! sections it is out of the device's gate and of the context's, so that changes of page tables and of the memory table,
//! and front ends, wait for one section at most.

use std::{
    cell::Cell,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hmm_protocol::FaultAccess;
use vhost_user_backend::VringT;
use virtio_queue::QueueT;
use vm_memory::VolatileSlice;

use crate::{
    device::Device,
    jobs::{Access, Next, Step, Turn, TurnEnd},
    mmu::{Look, Miss, Section},
};

/// How long an executor stays in a section.
const SECTION: Duration = Duration::from_micros(100);
/// How long an executor works on a part of a job when others wait.
const TURN: Duration = Duration::from_millis(1);
/// How long an executor steps aside for an urgent batch, at most, between two sections.
const STEP_ASIDE: Duration = Duration::from_micros(200);

/// The executors of a device. They end, and are waited for, when this is dropped.
pub struct Executors {
    device: Arc<Device>,
    threads: Vec<JoinHandle<()>>,
}

impl Executors {
    /// Starts `count` executors.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub fn start(device: &Arc<Device>, count: usize) -> io::Result<Self> {
        let mut this = Self {
            device: Arc::clone(device),
            threads: Vec::with_capacity(count),
        };
        for number in 0..count {
            let device = Arc::clone(device);
            let executor = thread::Builder::new()
                .name(format!("executor{number}"))
                .spawn(move || device.execute_jobs())?;
            this.threads.push(executor);
        }
        Ok(this)
    }
}

impl Drop for Executors {
    fn drop(&mut self) {
        self.device.engine().jobs().stop();
        for executor in self.threads.drain(..) {
            // A panic of an executor has ended the process already.
            let _ = executor.join();
        }
    }
}

/// A section, and when to leave it.
struct InSection<'a, 's> {
    section: &'a Section<'s>,
    until: Instant,
    stop: &'a AtomicBool,
    has_worked: Cell<bool>,
}

impl Access for InSection<'_, '_> {
    fn span(&self, address: u64, len: u64, access: FaultAccess) -> Result<VolatileSlice<'_>, Miss> {
        self.section.span(address, len, access)
    }

    fn look(&self, address: u64) -> Look {
        self.section.look(address)
    }

    /// Work asks before each of its steps. A section has one step at least: a thread that is off its processor for longer
    /// than a section, or changes of page tables that follow each other, cost a job time, and do not stop it.
    fn should_leave(&self) -> bool {
        let may_leave = self.has_worked.replace(true);
        self.stop.load(Ordering::Relaxed)
            || may_leave && (self.section.should_leave() || Instant::now() >= self.until)
    }
}

impl Device {
    /// Executes jobs until the device ends.
    fn execute_jobs(&self) {
        loop {
            match self.engine().jobs().next() {
                Next::Turn(turn) => self.execute_turn(turn),
                Next::Deliver => self.deliver_reports(),
                Next::End => return,
            }
        }
    }

    /// Works on a part of a job for a while, and puts it back.
    fn execute_turn(&self, mut turn: Turn) {
        let until = Instant::now() + TURN;
        let ended = loop {
            match self.execute_section(&mut turn) {
                Some(TurnEnd::Step(Step::Again)) if Instant::now() < until => {}
                Some(ended) => break ended,
                None => {
                    self.engine().jobs().hold();
                    break TurnEnd::Step(Step::Again);
                }
            }
            if turn.stop.load(Ordering::Relaxed) {
                break TurnEnd::Step(Step::Again);
            }
            self.step_aside();
        };
        if self.engine().jobs().put_back(turn, ended) {
            self.deliver_reports();
        }
    }

    /// Works on a part of a job for a section. `None`: no job may run now.
    fn execute_section(&self, turn: &mut Turn) -> Option<TurnEnd> {
        let guest = self.gate().enter();
        if !self.may_run_jobs() {
            return None;
        }
        let memories = self.engine().memories(&guest);
        let is_wanted = || self.gate().is_wanted();
        let Turn {
            work,
            context,
            stop,
            ..
        } = turn;
        let step = context.section(&memories, &is_wanted, |section| {
            work.run(&InSection {
                section,
                until: Instant::now() + SECTION,
                stop,
                has_worked: Cell::new(false),
            })
        });
        Some(step.map_or(TurnEnd::Destroyed, TurnEnd::Step))
    }

    /// Whether jobs may touch memory: not while the device is paused, and not while its queues are stopped, because then the
    /// guest's processors are, too. Call it in the gate.
    fn may_run_jobs(&self) -> bool {
        let Some(index) = self.layout().report() else {
            return false;
        };
        !self.is_paused()
            && self.rings().get(usize::from(index)).is_some_and(|ring| {
                let state = ring.get_ref();
                state.is_enabled() && state.get_queue().ready()
            })
    }

    /// Lets urgent batches go first.
    fn step_aside(&self) {
        if !self.urgent_is_busy() {
            return;
        }
        let until = Instant::now() + STEP_ASIDE;
        while self.urgent_is_busy() && Instant::now() < until {
            thread::yield_now();
        }
    }
}
