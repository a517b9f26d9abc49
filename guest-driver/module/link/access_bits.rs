// SPDX-License-Identifier: GPL-2.0-only

//! Asks the device which blocks of its memory jobs accessed.

use super::{
    control::{
        Question,
        ACCESS_BITMAP_BYTES,
        ACCESS_BLOCKS, //
    },
    state::Link, //
};
use hmm_protocol::{
    Features,
    CONTROL_BYTES, //
};

/// Bytes of a block of device memory.
const BLOCK_BYTES: u64 = 2 << 20;

impl Link {
    /// Calls `accessed` with the number of each block of 2 MiB of device memory that jobs accessed since
    /// the last call. A device that cannot tell, or does not, or is not to be
    /// asked, tells of none. May sleep.
    pub(crate) fn take_accessed(&self, mut accessed: impl FnMut(usize)) {
        let is_wanted = *crate::module_parameters::access_bits.value_ref() != 0;
        if !is_wanted || !self.features().contains(Features::ACCESS_BITS) {
            return;
        }
        let blocks = self.limits().memory_bytes / BLOCK_BYTES;
        for first in (0..blocks).step_by(ACCESS_BLOCKS) {
            let question = Question::AccessBits(first);
            let asked = self.access_bits.try_ask_for(self, question, |written| {
                for byte in 0..ACCESS_BITMAP_BYTES {
                    let bits = written.byte(CONTROL_BYTES + byte).unwrap_or(0);
                    for bit in (0..8).filter(|bit| bits & (1 << bit) != 0) {
                        let block = first + (byte * 8 + bit) as u64;
                        // Bits beyond the end of the memory are the device's mistake.
                        if let Some(block) = usize::try_from(block).ok().filter(|_| block < blocks)
                        {
                            accessed(block);
                        }
                    }
                }
            });
            if asked.is_err() {
                return;
            }
        }
    }
}
