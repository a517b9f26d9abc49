// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is copied: batches of pages or extents, the same for memcpy and for the device.

use hmm_protocol::{BatchFlags, BatchHeader, BatchKind, CopyEntry, Op, PageList};
use zerocopy::IntoBytes;

/// Pages are taken from the guest's memory from here on.
pub(crate) const GUEST_START: u64 = 64 << 20;
const PAGE: u64 = 4096;

/// How a batch is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Scattered guest pages against one extent of device memory.
    PageList,
    /// Scattered guest pages against scattered device pages.
    Pages,
    /// 2 MiB on both sides.
    Extents,
    /// 8 bytes an entry, all in a few pages: what is left is not copying.
    Words,
}

impl Shape {
    /// Bytes of an entry.
    pub(crate) fn entry_bytes(self) -> u64 {
        match self {
            Self::PageList | Self::Pages => PAGE,
            Self::Extents => 2 << 20,
            Self::Words => 8,
        }
    }
}

/// One batch: where from and where to, and how much each time.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) shape: Shape,
    pub(crate) op: Op,
    /// Guest addresses and device addresses.
    pub(crate) entries: Vec<(u64, u64)>,
}

/// A sequence of numbers that is the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Puts `items` in another order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

impl Batch {
    /// A batch of `count` entries somewhere in `footprint` bytes on each side.
    pub(crate) fn random(
        shape: Shape,
        op: Op,
        count: u64,
        footprint: u64,
        random: &mut Random,
    ) -> Self {
        let bytes = shape.entry_bytes();
        let extent = random.below((footprint - count * bytes.min(PAGE)) / PAGE + 1) * PAGE;
        let entries = (0..count)
            .map(|index| {
                let guest = match shape {
                    Shape::Words => index * 64 % (16 * PAGE),
                    _ => random.below(footprint / bytes) * bytes,
                };
                let device = match shape {
                    Shape::PageList => extent + index * PAGE,
                    Shape::Words => index * 64 % (16 * PAGE),
                    _ => random.below(footprint / bytes) * bytes,
                };
                (GUEST_START + guest, device)
            })
            .collect();
        Self { shape, op, entries }
    }

    /// Bytes that it copies.
    pub(crate) fn bytes(&self) -> u64 {
        self.entries.len() as u64 * self.shape.entry_bytes()
    }

    /// The request of the wire format.
    pub(crate) fn request(&self, generation: u64) -> Vec<u8> {
        let count = self.entries.len() as u32;
        if self.shape == Shape::PageList {
            let header = BatchHeader::new(
                BatchKind::PageList,
                BatchFlags::default(),
                count,
                1,
                generation,
            );
            let list = PageList::new(self.op, 12, self.entries[0].1);
            let addresses: Vec<u8> = self
                .entries
                .iter()
                .flat_map(|(guest, _)| guest.to_le_bytes())
                .collect();
            return [header.as_bytes(), list.as_bytes(), &addresses].concat();
        }
        let header = BatchHeader::new(
            BatchKind::Entries,
            BatchFlags::default(),
            count,
            1,
            generation,
        );
        let bytes = self.shape.entry_bytes() as u32;
        let entries: Vec<CopyEntry> = self
            .entries
            .iter()
            .map(|(guest, device)| CopyEntry::new(self.op, *guest, *device, bytes))
            .collect();
        [header.as_bytes(), entries.as_bytes()].concat()
    }
}
