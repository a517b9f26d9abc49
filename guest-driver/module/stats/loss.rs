// SPDX-License-Identifier: GPL-2.0-only

//! Counters of what happens while a device is lost.

use super::counter::Counter;

/// All zero at first.
pub(crate) struct LossStats {
    /// Times that a CPU fault slept because the device was lost.
    pub(crate) fault_waits: Counter,
    /// Calls that waited because the device was lost.
    pub(crate) call_waits: Counter,
    /// Times that a device answered that it has no session, or another one.
    pub(crate) lost_sessions: Counter,
}

impl LossStats {
    pub(super) const fn new() -> Self {
        Self {
            fault_waits: Counter::new(),
            call_waits: Counter::new(),
            lost_sessions: Counter::new(),
        }
    }

    /// The counters with their names.
    pub(crate) fn named(&self) -> [(&'static str, &Counter); 3] {
        [
            ("loss_fault_waits", &self.fault_waits),
            ("loss_call_waits", &self.call_waits),
            ("lost_sessions", &self.lost_sessions),
        ]
    }
}
