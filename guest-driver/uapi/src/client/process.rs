// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Whose memory a call is about.

use core::fmt;
use std::num::NonZeroI32;

/// Whose memory a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    /// The process that makes the call. Needs no privilege.
    Caller,
    /// Another process, by its id in the caller's namespace. The caller must be allowed to debug it.
    Id(NonZeroI32),
}

impl Process {
    /// The process with this id; `None` unless it is positive.
    pub fn from_id(id: i32) -> Option<Self> {
        NonZeroI32::new(id)
            .filter(|id| id.is_positive())
            .map(Self::Id)
    }

    /// The value of the structures' `pid` field.
    pub(super) fn raw(self) -> i32 {
        match self {
            Self::Caller => 0,
            Self::Id(id) => id.get(),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller => f.write_str("the calling process"),
            Self::Id(id) => write!(f, "process {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Process;

    #[test]
    fn only_positive_ids_name_another_process() {
        assert_eq!(Process::from_id(0), None);
        assert_eq!(Process::from_id(-1), None);
        assert_eq!(Process::from_id(7).map(Process::raw), Some(7));
        assert_eq!(Process::Caller.raw(), 0);
    }
}
