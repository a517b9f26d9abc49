// SPDX-License-Identifier: GPL-2.0-only

//! Numbers of device nodes.

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::{
            Full,
            Relaxed, //
        },
        Atomic, //
    }, //
};

const NAMES: [&CStr; 8] = [
    c"hmm0", c"hmm1", c"hmm2", c"hmm3", c"hmm4", c"hmm5", c"hmm6", c"hmm7",
];

/// One bit for each number in use.
static IN_USE: Atomic<u32> = Atomic::new(0);

/// The number of a node, free again when it is dropped.
pub(super) struct NodeNumber {
    bit: u32,
    name: &'static CStr,
}

impl NodeNumber {
    /// The lowest free number.
    ///
    /// # Errors
    ///
    /// `ENOSPC`: there are too many devices.
    pub(super) fn new() -> Result<Self> {
        let mut used = IN_USE.load(Relaxed);
        loop {
            let (bit, &name) = (0u32..)
                .map(|number| 1 << number)
                .zip(&NAMES)
                .find(|(bit, _)| used & bit == 0)
                .ok_or(ENOSPC)?;
            match IN_USE.cmpxchg(used, used | bit, Full) {
                Ok(_) => return Ok(Self { bit, name }),
                Err(now) => used = now,
            }
        }
    }

    /// The node's name below `/dev`.
    pub(super) fn name(&self) -> &'static CStr {
        self.name
    }
}

impl Drop for NodeNumber {
    fn drop(&mut self) {
        // The bit is ours, so taking it away carries to no other.
        IN_USE.fetch_sub(self.bit, Full);
    }
}
