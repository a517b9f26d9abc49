// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The last actions of a process, for the report of a failure.

use std::collections::VecDeque;
use std::fmt;

/// How many operations are remembered.
const LENGTH: usize = 24;

/// The last operations, the latest at the end.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<String>);

impl History {
    /// Notes what was done, or what begins.
    pub(super) fn note(&mut self, text: String) {
        if self.0.len() == LENGTH {
            self.0.pop_front();
        }
        self.0.push_back(text);
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for text in &self.0 {
            write!(f, "\n  {text}")?;
        }
        Ok(())
    }
}
