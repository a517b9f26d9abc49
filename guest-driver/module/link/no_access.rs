// SPDX-License-Identifier: GPL-2.0-only

//! Proof that the device does not access what it was told of.

use super::{
    state::Link,
    why::Why, //
};
use hmm_protocol::MapEntry;

/// Proof that the device does not access a range of a context, or the context as a whole, any more: it has said so, or
/// it was reset since. Only the functions of this file make one.
///
/// A [`SharedBuffer`] that was exposed is freed only with such a proof.
///
/// [`SharedBuffer`]: crate::sys::virtio::virtqueue::SharedBuffer
pub(crate) struct NoAccess(());

impl Link {
    /// The proof for everything that the device was told when it had been reset `resets` times; `None` if it was not
    /// reset since.
    pub(crate) fn proof_of_reset(&self, resets: u32) -> Option<NoAccess> {
        (self.resets() != resets).then_some(NoAccess(()))
    }

    /// Takes [`start`, `start` + `len`) of a context away. When this returns, no job accesses the range. The
    /// context was created when the device had been reset `resets` times.
    pub(crate) fn unmap(&self, context: u32, resets: u32, start: u64, len: u64) -> NoAccess {
        if !self.has_unmapped(context, resets, MapEntry::unmap(start, len)) {
            // Only a reset tells for sure.
            self.repair(resets, Why::NoAnswer);
        }
        NoAccess(())
    }

    /// Destroys a context that was created when the device had been reset `resets` times. When this
    /// returns, nothing of the context touches memory.
    pub(crate) fn destroy_context(&self, context: u32, resets: u32) -> NoAccess {
        if !self.has_destroyed(context, resets) {
            // Only a reset tells for sure.
            self.repair(resets, Why::NoAnswer);
        }
        NoAccess(())
    }
}
