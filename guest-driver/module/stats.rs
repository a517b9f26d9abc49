// SPDX-License-Identifier: GPL-2.0-only

//! Counters and times of a device. The names and units of the counters are those of
//! `hmm_uapi::Stats`.

mod contexts;
mod counter;
mod loss;
mod stage;

pub(crate) use self::stage::{
    Stage,
    StageTimes,
    Stopwatch,
    Times, //
};
use self::{
    contexts::ContextStats,
    counter::Counter,
    loss::LossStats, //
};
use hmm_uapi::{
    SkipReason,
    Trigger,
    SKIP_REASONS, //
};
use kernel::prelude::*;

/// All counters but those of the pool, and all times.
pub(crate) struct Stats {
    pub(crate) bytes_to_device: Counter,
    pub(crate) bytes_to_system: Counter,
    pub(crate) bytes_by_fault: Counter,
    pub(crate) bytes_by_eviction: Counter,
    pub(crate) cpu_faults: Counter,
    pub(crate) cpu_faults_failed: Counter,
    pub(crate) batches: Counter,
    pub(crate) doorbells: Counter,
    pub(crate) copy_errors: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) protocol_errors: Counter,
    pub(crate) contexts: ContextStats,
    pub(crate) loss: LossStats,
    skipped: [Counter; SKIP_REASONS],
    times: Times,
}

impl Stats {
    /// All zero.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            bytes_to_device: Counter::new(),
            bytes_to_system: Counter::new(),
            bytes_by_fault: Counter::new(),
            bytes_by_eviction: Counter::new(),
            cpu_faults: Counter::new(),
            cpu_faults_failed: Counter::new(),
            batches: Counter::new(),
            doorbells: Counter::new(),
            copy_errors: Counter::new(),
            timeouts: Counter::new(),
            protocol_errors: Counter::new(),
            contexts: ContextStats::new(),
            loss: LossStats::new(),
            skipped: [const { Counter::new() }; SKIP_REASONS],
            times: Times::new()?,
        })
    }

    /// Measures a step from now until the result is dropped.
    pub(crate) fn measure(&self, stage: Stage, trigger: Trigger) -> Stopwatch<'_> {
        self.times.measure(stage, trigger)
    }

    /// What was measured.
    pub(crate) fn times(&self) -> &Times {
        &self.times
    }

    /// All counters but those of skipped pages, with their names.
    pub(crate) fn named(&self) -> [(&'static str, &Counter); 11] {
        [
            ("bytes_to_device", &self.bytes_to_device),
            ("bytes_to_system", &self.bytes_to_system),
            ("bytes_by_fault", &self.bytes_by_fault),
            ("bytes_by_eviction", &self.bytes_by_eviction),
            ("cpu_faults", &self.cpu_faults),
            ("cpu_faults_failed", &self.cpu_faults_failed),
            ("batches", &self.batches),
            ("doorbells", &self.doorbells),
            ("copy_errors", &self.copy_errors),
            ("timeouts", &self.timeouts),
            ("protocol_errors", &self.protocol_errors),
        ]
    }

    /// Counts pages that did not move.
    pub(crate) fn skip(&self, reason: SkipReason, pages: u64) {
        if let Some(counter) = self.skipped.get(reason as usize) {
            counter.add(pages);
        }
    }

    /// Pages that did not move, by reason.
    pub(crate) fn skipped(&self) -> [u64; SKIP_REASONS] {
        let mut values = [0; SKIP_REASONS];
        for (value, counter) in values.iter_mut().zip(&self.skipped) {
            *value = counter.get();
        }
        values
    }
}
