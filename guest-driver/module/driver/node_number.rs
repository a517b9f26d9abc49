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

/// The nodes of the test interface. The kernel's test program takes later ones for devices of another kind.
const DMIRROR_NAMES: [&CStr; 2] = [c"hmm_dmirror0", c"hmm_dmirror1"];

/// One bit for each number in use.
static IN_USE: Atomic<u32> = Atomic::new(0);

/// The number of a node, free again when it is dropped.
pub(super) struct NodeNumber {
    bit: u32,
    name: &'static CStr,
    dmirror_name: Option<&'static CStr>,
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
                Ok(_) => {
                    let number = usize::try_from(bit.trailing_zeros())?;
                    return Ok(Self {
                        bit,
                        name,
                        dmirror_name: DMIRROR_NAMES.get(number).copied(),
                    });
                }
                Err(now) => used = now,
            }
        }
    }

    /// The node's name below `/dev`.
    pub(super) fn name(&self) -> &'static CStr {
        self.name
    }

    /// The name of the node of the test interface, if a device of this number has one.
    pub(super) fn dmirror_name(&self) -> Option<&'static CStr> {
        self.dmirror_name
    }
}

impl Drop for NodeNumber {
    fn drop(&mut self) {
        // The bit is ours, so taking it away carries to no other.
        IN_USE.fetch_sub(self.bit, Full);
    }
}
