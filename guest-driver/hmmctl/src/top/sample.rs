// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What was counted at one moment.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was counted at one moment. Counters only grow, except `resident_bytes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// When, seconds after the first sample.
    pub(crate) seconds: f64,
    /// The device's node.
    pub(crate) node: String,
    /// `present`, `lost` or `gone`.
    pub(crate) device: String,
    /// Device memory, bytes.
    pub(crate) memory_bytes: u64,
    /// Counters by name: those of STATS, and where debugfs can be read, those of contexts, jobs and losses.
    pub(crate) counters: BTreeMap<String, u64>,
    /// Pages that did not move, by reason.
    pub(crate) skipped: BTreeMap<String, u64>,
    /// Processes with device memory, the largest first.
    pub(crate) processes: Vec<ProcessSample>,
}

/// A process at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessSample {
    /// Its id.
    pub(crate) pid: i32,
    /// The name of its program, as the kernel cuts it.
    pub(crate) name: String,
    /// Its device memory, bytes.
    pub(crate) resident_bytes: u64,
    /// How much it may have, bytes; `None`: as much as there is.
    pub(crate) limit_bytes: Option<u64>,
}

impl Sample {
    /// A counter; 0 if it is not known.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }
}
