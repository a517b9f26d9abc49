// SPDX-License-Identifier: GPL-2.0-only

//! Counters of contexts and jobs.

use super::counter::Counter;

/// All zero at first.
pub(crate) struct ContextStats {
    /// Page faults of jobs that were served.
    pub(crate) device_faults: Counter,
    /// Those of them that ended the job.
    pub(crate) device_faults_failed: Counter,
    /// Pages that device faults mapped.
    pub(crate) device_fault_pages: Counter,
    /// Those of device faults that moved memory to the device.
    pub(crate) device_faults_migrated: Counter,
    /// Changes of address spaces that took something away from the device.
    pub(crate) invalidations: Counter,
    /// Jobs that the device accepted.
    pub(crate) jobs: Counter,
    /// Those of them that ended with an error.
    pub(crate) jobs_failed: Counter,
}

impl ContextStats {
    pub(super) const fn new() -> Self {
        Self {
            device_faults: Counter::new(),
            device_faults_failed: Counter::new(),
            device_fault_pages: Counter::new(),
            device_faults_migrated: Counter::new(),
            invalidations: Counter::new(),
            jobs: Counter::new(),
            jobs_failed: Counter::new(),
        }
    }

    /// All counters with their names.
    pub(crate) fn named(&self) -> [(&'static str, &Counter); 7] {
        [
            ("device_faults", &self.device_faults),
            ("device_faults_failed", &self.device_faults_failed),
            ("device_fault_pages", &self.device_fault_pages),
            ("device_faults_migrated", &self.device_faults_migrated),
            ("invalidations", &self.invalidations),
            ("jobs", &self.jobs),
            ("jobs_failed", &self.jobs_failed),
        ]
    }
}
