// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The used ring: one update of its index for a whole set of completions, and at most one signal.

use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

/// Offset of the elements in the used ring, and of the heads in the available ring.
const HEADER_BYTES: u64 = 4;

/// Completions that are not published yet: heads and used lengths.
#[derive(Debug, Default)]
pub(super) struct UsedSet {
    elements: Vec<(u16, u32)>,
}

impl UsedSet {
    pub(super) fn push(&mut self, head: u16, len: u32) {
        self.elements.push((head, len));
    }

    pub(super) fn len(&self) -> usize {
        self.elements.len()
    }

    /// Writes all elements and then the index. Returns whether the driver wants a signal, or `None` if there was
    /// nothing to publish.
    pub(super) fn publish(
        &mut self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Option<bool>, GuestMemoryError> {
        if self.elements.is_empty() {
            return Ok(None);
        }
        let size = queue.size();
        let before = queue.next_used();
        let mut next = before;
        for (head, len) in self.elements.drain(..) {
            let slot = u64::from(next % size) * 8 + HEADER_BYTES;
            let element = (u64::from(len) << 32) | u64::from(head);
            memory.write_obj(element.to_le(), offset(queue.used_ring(), slot)?)?;
            next = next.wrapping_add(1);
        }
        queue.set_next_used(next);
        memory.store(
            next.to_le(),
            offset(queue.used_ring(), 2)?,
            Ordering::Release,
        )?;
        // The index must be visible before the driver's wish is read, or both sides may miss each other.
        fence(Ordering::SeqCst);
        if queue.event_idx_enabled() {
            let at = offset(queue.avail_ring(), HEADER_BYTES + 2 * u64::from(size))?;
            let event = u16::from_le(memory.load(at, Ordering::Relaxed)?);
            let since_event = next.wrapping_sub(event).wrapping_sub(1);
            Ok(Some(since_event < next.wrapping_sub(before)))
        } else {
            let flags =
                u16::from_le(memory.load(GuestAddress(queue.avail_ring()), Ordering::Relaxed)?);
            Ok(Some(u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0))
        }
    }
}

fn offset(ring: u64, offset: u64) -> Result<GuestAddress, GuestMemoryError> {
    ring.checked_add(offset)
        .map(GuestAddress)
        .ok_or(GuestMemoryError::GuestAddressOverflow)
}
