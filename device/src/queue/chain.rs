// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A descriptor chain, copied into private memory: what the driver may change afterwards no longer matters.

use std::{
    collections::VecDeque,
    ops::Deref,
    time::{Duration, Instant},
};

use virtio_queue::DescriptorChain;
use vm_memory::{Address, GuestMemory as VmGuestMemory};

use crate::guest_memory::{GuestMemory, OutOfTable};

/// Most descriptors of a chain.
const MAX_DESCRIPTORS: usize = 64;

/// The longest ring that a front end may set up.
const MAX_RING: u16 = 1024;

/// A piece of guest memory: address and length in bytes.
type Segment = (u64, u32);

/// The buffers of a chain.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
    readable_bytes: u64,
    writable_bytes: u64,
    malformed: bool,
}

/// When the chains of a ring were first seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Positions before this one were seen at this time; oldest first.
    before: VecDeque<(u16, Instant)>,
}

impl Seen {
    /// Notes that the chain at `position` is started and that all before `available` are seen. Returns how long it
    /// waited.
    pub(super) fn started(&mut self, position: u16, available: u16) -> Duration {
        let now = Instant::now();
        // Positions wrap; none is further away than a ring is long, unless the ring was set up again meanwhile.
        let covers = |end: u16| end.wrapping_sub(position).wrapping_sub(1) < MAX_RING;
        while self.before.front().is_some_and(|(end, _)| !covers(*end)) {
            self.before.pop_front();
        }
        let waited = self
            .before
            .front()
            .map_or(Duration::ZERO, |(_, seen)| now - *seen);
        if self.before.back().is_none_or(|(end, _)| *end != available) {
            self.before.push_back((available, now));
        }
        waited
    }
}

impl Chain {
    /// Walks `chain` and keeps its buffers.
    pub(super) fn take<M>(&mut self, chain: DescriptorChain<M>)
    where
        M: Deref,
        M::Target: VmGuestMemory,
    {
        self.head = chain.head_index();
        self.readable.clear();
        self.writable.clear();
        self.readable_bytes = 0;
        self.writable_bytes = 0;
        self.malformed = false;
        for (count, descriptor) in chain.enumerate() {
            if count == MAX_DESCRIPTORS {
                self.malformed = true;
                break;
            }
            let segment = (descriptor.addr().raw_value(), descriptor.len());
            if segment.1 == 0 {
                continue;
            }
            if descriptor.is_write_only() {
                self.writable.push(segment);
                self.writable_bytes += u64::from(segment.1);
            } else {
                self.malformed |= !self.writable.is_empty();
                self.readable.push(segment);
                self.readable_bytes += u64::from(segment.1);
            }
        }
    }

    /// Whether it has too many descriptors, or readable ones after writable ones.
    pub(super) fn is_malformed(&self) -> bool {
        self.malformed
    }

    /// Bytes of the device-readable part.
    pub(super) fn readable_bytes(&self) -> u64 {
        self.readable_bytes
    }

    /// Bytes of the device-writable part.
    pub(super) fn writable_bytes(&self) -> u64 {
        self.writable_bytes
    }

    /// Copies at most `limit` bytes of the device-readable part into `request`.
    pub(super) fn read(
        &self,
        guest: &GuestMemory,
        request: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), OutOfTable> {
        request.clear();
        for (address, len) in &self.readable {
            let start = request.len();
            let here = (*len as usize).min(limit - start);
            request.resize(start + here, 0);
            guest.read(*address, &mut request[start..])?;
        }
        Ok(())
    }

    /// Copies `bytes` to offset `at` of the device-writable part, which is long enough.
    pub(super) fn write(
        &self,
        guest: &GuestMemory,
        mut at: usize,
        mut bytes: &[u8],
    ) -> Result<(), OutOfTable> {
        for (address, len) in &self.writable {
            let len = *len as usize;
            if at >= len {
                at -= len;
                continue;
            }
            let (here, rest) = bytes.split_at(bytes.len().min(len - at));
            let address = address.checked_add(at as u64).ok_or(OutOfTable)?;
            guest.write(address, here)?;
            bytes = rest;
            at = 0;
            if bytes.is_empty() {
                return Ok(());
            }
        }
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(OutOfTable)
        }
    }

    /// Stores the first byte of the device-writable part after everything that was written before.
    pub(super) fn write_first(&self, guest: &GuestMemory, byte: u8) -> Result<(), OutOfTable> {
        let (address, _) = self.writable.first().ok_or(OutOfTable)?;
        guest.store_release(*address, byte)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Seen;

    #[test]
    fn chains_wait_from_when_they_were_seen() {
        let mut seen = Seen::default();
        assert_eq!(seen.started(65534, 1), Duration::ZERO, "seen just now");
        std::thread::sleep(Duration::from_millis(2));
        assert!(seen.started(65535, 1) >= Duration::from_millis(2));
        assert!(seen.started(0, 2) >= Duration::from_millis(2));
        assert!(seen.started(1, 2) < Duration::from_secs(1));
        assert_eq!(seen.started(2, 3), Duration::ZERO);
        assert_eq!(
            seen.started(9000, 9001),
            Duration::ZERO,
            "a ring set up anew"
        );
    }
}
