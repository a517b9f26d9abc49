// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults on command: what makes every error path of a driver testable.
//!
//! A fault is an [`Action`] with a scope (batches or entries, of an operation, of a queue) and a trigger (the n-th,
//! every n-th, a random fraction with a seed; at most so many times). Without faults the cost is one load a batch.

mod action;
mod config_field;
mod error;
mod jobs;
mod parse;
mod script;
mod trigger;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use hmm_protocol::{Config, Status};
use parking_lot::Mutex;
use serde::Serialize;

pub use self::{
    action::{Action, QueueScope, Step, Unit},
    config_field::ConfigField,
    error::FaultError,
    jobs::{JobFaults, ReportFaults},
    parse::FaultSpec,
    script::{ScriptError, read_script},
};
use self::{error::MAX_FAULTS, trigger::Trigger};
use crate::layout::Role;

#[derive(Debug)]
struct Fault {
    id: u64,
    spec: FaultSpec,
    action: Action,
    unit: Unit,
    op: Option<&'static str>,
    queue: QueueScope,
    trigger: Trigger,
}

impl Fault {
    fn fires(&mut self, unit: Unit, queue: Role, op: Option<&'static str>) -> bool {
        self.unit == unit
            && self.queue.contains(queue)
            && (self.op.is_none() || self.op == op)
            && self.trigger.fires()
    }
}

/// What the faults want of one batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchFaults {
    /// Fail it with this status.
    pub fail: Option<Status>,
    /// Start it later.
    pub delay: Duration,
    /// Report another cookie.
    pub wrong_cookie: bool,
    /// What becomes of its completion.
    pub delivery: Delivery,
    /// Die at this step.
    pub die: Option<Step>,
}

/// What becomes of a completion on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Do not deliver it.
    pub drop: bool,
    /// Deliver it twice.
    pub duplicate: bool,
    /// Deliver it after the next one of the queue.
    pub reorder: bool,
    /// Report this used length.
    pub used_len: Option<u32>,
    /// Die at this step.
    pub die: Option<Step>,
}

/// What the faults want of one entry.
#[derive(Clone, Copy, Debug, Default)]
pub struct EntryFaults {
    /// Fail it with this status.
    pub fail: Option<Status>,
    /// Start it later.
    pub delay: Duration,
    /// Invert a bit of this byte of its destination.
    pub corrupt: Option<u64>,
}

/// A fault as the control socket lists it.
#[derive(Clone, Debug, Serialize)]
pub struct FaultState {
    /// Its number.
    pub id: u64,
    /// Batches or entries in its scope so far.
    pub seen: u64,
    /// How often it fired.
    pub fired: u64,
    /// The fault itself.
    pub fault: FaultSpec,
}

/// All faults of a device.
#[derive(Debug, Default)]
pub struct Faults {
    /// Whether none may be added.
    forbidden: bool,
    /// Whether the driver did not acknowledge that there may be any.
    ignored: AtomicBool,
    any: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    faults: Vec<Fault>,
}

impl Faults {
    /// None, for ever.
    pub fn forbidden() -> Self {
        Self {
            forbidden: true,
            ..Self::default()
        }
    }

    /// Whether faults may be added.
    pub fn are_allowed(&self) -> bool {
        !self.forbidden
    }

    /// The driver has, or has not, acknowledged that there may be faults: without that none of them fires.
    pub fn obey(&self, acknowledged: bool) {
        self.ignored.store(!acknowledged, Ordering::Relaxed);
    }

    /// Whether there is any fault for the driver that runs.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed) && !self.ignored.load(Ordering::Relaxed)
    }

    /// Adds a fault and returns its number.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add(&self, spec: FaultSpec) -> Result<u64, FaultError> {
        let (action, unit, op, queue, trigger) = spec.check()?;
        if self.forbidden {
            return Err(FaultError::Forbidden);
        }
        let mut table = self.table.lock();
        if table.faults.len() >= MAX_FAULTS {
            return Err(FaultError::TooMany);
        }
        table.next_id += 1;
        let id = table.next_id;
        table.faults.push(Fault {
            id,
            spec,
            action,
            unit,
            op,
            queue,
            trigger,
        });
        self.any.store(true, Ordering::Relaxed);
        Ok(id)
    }

    /// Removes fault `id`, or all; returns how many went.
    pub fn clear(&self, id: Option<u64>) -> usize {
        let mut table = self.table.lock();
        let before = table.faults.len();
        table
            .faults
            .retain(|fault| id.is_some_and(|id| fault.id != id));
        self.any.store(!table.faults.is_empty(), Ordering::Relaxed);
        before - table.faults.len()
    }

    /// All faults with their counts.
    pub fn list(&self) -> Vec<FaultState> {
        let table = self.table.lock();
        table
            .faults
            .iter()
            .map(|fault| FaultState {
                id: fault.id,
                seen: fault.trigger.seen(),
                fired: fault.trigger.fired(),
                fault: fault.spec.clone(),
            })
            .collect()
    }

    /// What to do to a batch on `queue` whose first operation has the name `op`.
    pub fn batch(&self, queue: Role, op: Option<&'static str>) -> BatchFaults {
        let mut wanted = BatchFaults::default();
        if !self.any() {
            return wanted;
        }
        for fault in &mut self.table.lock().faults {
            if matches!(
                fault.action,
                Action::Stall | Action::Poison { .. } | Action::Config(..)
            ) || !fault.fires(Unit::Batch, queue, op)
            {
                continue;
            }
            match fault.action {
                Action::Fail(status) => wanted.fail = Some(status),
                Action::Delay(time) => wanted.delay += time,
                Action::Shorten(length) => wanted.delivery.used_len = Some(length),
                Action::Drop => wanted.delivery.drop = true,
                Action::Duplicate => wanted.delivery.duplicate = true,
                Action::Reorder => wanted.delivery.reorder = true,
                Action::Cookie => wanted.wrong_cookie = true,
                Action::Die(step @ (Step::BeforeCopy | Step::AfterCopy)) => wanted.die = Some(step),
                Action::Die(step) => wanted.delivery.die = Some(step),
                Action::Corrupt(_)
                | Action::Hang
                | Action::Stall
                | Action::Poison { .. }
                | Action::Config(..) => {}
            }
        }
        wanted
    }

    /// What to do to an entry on `queue` whose operation has the name `op`.
    pub fn entry(&self, queue: Role, op: &'static str) -> EntryFaults {
        let mut wanted = EntryFaults::default();
        for fault in &mut self.table.lock().faults {
            if !fault.fires(Unit::Entry, queue, Some(op)) {
                continue;
            }
            match fault.action {
                Action::Fail(status) => wanted.fail = Some(status),
                Action::Delay(time) => wanted.delay += time,
                Action::Corrupt(offset) => wanted.corrupt = Some(offset),
                _ => {}
            }
        }
        wanted
    }

    /// Whether device memory [`start`, `start + len`) may not be read.
    pub fn is_poisoned(&self, start: u64, len: u64) -> bool {
        self.any()
            && self.table.lock().faults.iter().any(|fault| {
                matches!(fault.action, Action::Poison { start: first, length }
                    if start < first.saturating_add(length) && first < start.saturating_add(len))
            })
    }

    /// Whether `queue` is not to be served.
    pub fn is_stalled(&self, queue: Role) -> bool {
        self.any()
            && self
                .table
                .lock()
                .faults
                .iter()
                .any(|fault| matches!(fault.action, Action::Stall) && fault.queue.contains(queue))
    }

    /// Writes what faults say into a configuration space.
    pub fn distort(&self, config: &mut Config) {
        // The driver reads it before it negotiates.
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        for fault in &self.table.lock().faults {
            if let Action::Config(field, value) = fault.action {
                field.set(config, value);
            }
        }
    }
}
