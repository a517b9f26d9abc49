// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A split ring as a driver keeps it, with the tools to break its rules.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use vhost::VringConfigData;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Guest;

/// Longer than anything takes on a busy machine; only a hang comes so far.
const HANG: Duration = Duration::from_secs(60);
const INDIRECT_TABLE: u64 = 48 << 10;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A descriptor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptor {
    /// Guest address.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// [`Descriptor::NEXT`] and its kind.
    pub flags: u16,
    /// Index of the next one.
    pub next: u16,
}

impl Descriptor {
    /// There is a next one.
    pub const NEXT: u16 = NEXT;
    /// The device writes it.
    pub const WRITE: u16 = WRITE;
    /// It is a table of descriptors.
    pub const INDIRECT: u16 = INDIRECT;

    /// Writes it to `table`.
    pub fn store(self, guest: &Guest, table: u64, index: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        guest.write(table + 16 * u64::from(index), &bytes);
    }
}

/// An element of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The chain.
    pub head: u32,
    /// Bytes that the device wrote.
    pub len: u32,
}

/// The driver's half of a queue.
pub struct Ring {
    base: u64,
    size: u16,
    event_idx: bool,
    next_avail: u16,
    last_used: u16,
    free: VecDeque<u16>,
    /// What the device waits on.
    pub kick: EventFd,
    /// What the device signals.
    pub call: EventFd,
}

impl Ring {
    /// An empty ring at guest address `base`, with 64 KiB of room.
    pub fn new(base: u64, size: u16, event_idx: bool) -> Self {
        Self {
            base,
            size,
            event_idx,
            next_avail: 0,
            last_used: 0,
            free: VecDeque::new(),
            kick: EventFd::new(EFD_NONBLOCK).expect("eventfd"),
            call: EventFd::new(EFD_NONBLOCK).expect("eventfd"),
        }
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Address of the descriptor table.
    pub fn descriptors(&self) -> u64 {
        self.base
    }

    /// Address of the available ring.
    pub fn avail(&self) -> u64 {
        self.base + 0x4000
    }

    /// Address of the used ring.
    pub fn used(&self) -> u64 {
        self.base + 0x6000
    }

    fn used_event(&self) -> u64 {
        self.avail() + 4 + 2 * u64::from(self.size)
    }

    fn avail_event(&self) -> u64 {
        self.used() + 4 + 8 * u64::from(self.size)
    }

    /// The ring as the front end tells it to the device.
    pub fn config(&self, guest: &Guest) -> VringConfigData {
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: guest.host_address(self.descriptors()),
            used_ring_addr: guest.host_address(self.used()),
            avail_ring_addr: guest.host_address(self.avail()),
            log_addr: None,
        }
    }

    /// Makes the ring empty, with new event descriptors.
    pub fn reset(&mut self, guest: &Guest) {
        guest.write(self.base, &[0; 0x8000]);
        *self = Self::new(self.base, self.size, self.event_idx);
        self.free = (0..self.size).collect();
    }

    /// Chains that are available and not seen used.
    pub fn in_flight(&self) -> u16 {
        self.next_avail.wrapping_sub(self.last_used)
    }

    /// Makes a chain of buffers available.
    pub fn submit(&mut self, guest: &Guest, readable: &[(u64, u32)], writable: &[(u64, u32)]) {
        let buffers: Vec<(u64, u32, u16)> = readable
            .iter()
            .map(|(at, len)| (*at, *len, 0))
            .chain(writable.iter().map(|(at, len)| (*at, *len, WRITE)))
            .collect();
        let slots: Vec<u16> = buffers
            .iter()
            .map(|_| self.free.pop_front().expect("the ring is not full"))
            .collect();
        for (position, (address, len, flags)) in buffers.iter().enumerate() {
            let next = slots.get(position + 1);
            let flags = flags | if next.is_some() { NEXT } else { 0 };
            let descriptor = Descriptor {
                address: *address,
                len: *len,
                flags,
                next: next.copied().unwrap_or(0),
            };
            descriptor.store(guest, self.descriptors(), slots[position]);
        }
        self.free.extend(&slots);
        self.make_available(guest, slots[0]);
    }

    /// Makes a chain available whose buffers are in an indirect table.
    pub fn submit_indirect(
        &mut self,
        guest: &Guest,
        readable: &[(u64, u32)],
        writable: &[(u64, u32)],
    ) {
        let table = self.base + INDIRECT_TABLE;
        let buffers: Vec<(u64, u32, u16)> = readable
            .iter()
            .map(|(at, len)| (*at, *len, 0))
            .chain(writable.iter().map(|(at, len)| (*at, *len, WRITE)))
            .collect();
        for (position, (address, len, flags)) in buffers.iter().enumerate() {
            let last = position + 1 == buffers.len();
            let flags = flags | if last { 0 } else { NEXT };
            let descriptor = Descriptor {
                address: *address,
                len: *len,
                flags,
                next: position as u16 + 1,
            };
            descriptor.store(guest, table, position as u16);
        }
        let slot = self.free.pop_front().expect("the ring is not full");
        self.free.push_back(slot);
        let descriptor = Descriptor {
            address: table,
            len: 16 * buffers.len() as u32,
            flags: INDIRECT,
            next: 0,
        };
        descriptor.store(guest, self.descriptors(), slot);
        self.make_available(guest, slot);
    }

    /// Puts `head` on the available ring, whatever it names.
    pub fn make_available(&mut self, guest: &Guest, head: u16) {
        let slot = u64::from(self.next_avail % self.size);
        guest.store_u16(self.avail() + 4 + 2 * slot, head);
        self.next_avail = self.next_avail.wrapping_add(1);
        guest.store_u16(self.avail() + 2, self.next_avail);
    }

    /// Sets the available index, whatever is behind it.
    pub fn set_available_index(&mut self, guest: &Guest, index: u16) {
        guest.store_u16(self.avail() + 2, index);
    }

    /// Kicks.
    pub fn kick(&self) {
        self.kick.write(1).expect("kick");
    }

    /// Kicks if the device asked for it.
    pub fn kick_if_wanted(&self, guest: &Guest, before: u16) -> bool {
        let event = guest.load_u16(self.avail_event());
        let wanted = self.next_avail.wrapping_sub(event).wrapping_sub(1)
            < self.next_avail.wrapping_sub(before);
        if wanted {
            self.kick();
        }
        wanted
    }

    /// The available index.
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// The used index.
    pub fn used_index(&self, guest: &Guest) -> u16 {
        guest.load_u16(self.used() + 2)
    }

    /// The next element of the used ring, if there is one.
    pub fn poll(&mut self, guest: &Guest) -> Option<Used> {
        if self.used_index(guest) == self.last_used {
            return None;
        }
        let slot = u64::from(self.last_used % self.size);
        let bytes = guest.read(self.used() + 4 + 8 * slot, 8);
        let word =
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        self.last_used = self.last_used.wrapping_add(1);
        if self.event_idx {
            guest.store_u16(self.used_event(), self.last_used);
        }
        Some(Used {
            head: word(0),
            len: word(4),
        })
    }

    /// Waits for the next element of the used ring.
    pub fn wait(&mut self, guest: &Guest) -> Used {
        let started = Instant::now();
        loop {
            if let Some(used) = self.poll(guest) {
                return used;
            }
            assert!(started.elapsed() < HANG, "the device does not answer");
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// Waits for a signal; the device must have sent one by `HANG`.
    pub fn wait_for_signal(&self) {
        let started = Instant::now();
        while self.call.read().is_err() {
            assert!(started.elapsed() < HANG, "the device does not signal");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Asks for a signal only when the used index passes `index`.
    pub fn want_signal_at(&self, guest: &Guest, index: u16) {
        guest.store_u16(self.used_event(), index);
    }
}
