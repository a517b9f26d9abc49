// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What was chosen for a pattern, and how fast it was.

use serde::Serialize;

use super::{CopyRoutine, Pattern};

/// What large batches of one pattern are copied with.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measured {
    /// How their pieces lie.
    pub pattern: Pattern,
    /// What copies them.
    pub routine: CopyRoutine,
    /// Its rate, bytes a second; absent if nothing was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// The rate of memcpy in the same seconds, bytes a second; absent if nothing was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memcpy_bytes_per_second: Option<u64>,
}

/// One routine for everything.
pub(super) fn unmeasured(routine: CopyRoutine) -> Vec<Measured> {
    (Pattern::ALL.into_iter())
        .map(|pattern| Measured {
            pattern,
            routine,
            bytes_per_second: None,
            memcpy_bytes_per_second: None,
        })
        .collect()
}
