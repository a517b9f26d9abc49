// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the bytes of an input for the rings mean: steps of a driver, most of them nearly right.

use arbitrary::Arbitrary;
use hmm_protocol::{BatchFlags, BatchHeader, BatchKind, CopyEntry, Op, PageList};
use zerocopy::IntoBytes;

/// A place: mostly in memory, sometimes on its borders, sometimes anywhere.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub(crate) enum Place {
    Near(u16),
    Page(u8),
    Border(i8),
    Anywhere(u64),
}

impl Place {
    pub(crate) fn address(self) -> u64 {
        match self {
            Self::Near(offset) => 0x8000 + u64::from(offset & 0x7ff8),
            Self::Page(page) => u64::from(page % 0x60) * 4096,
            Self::Border(offset) => 0x30000u64.wrapping_add_signed(i64::from(offset) * 8),
            Self::Anywhere(address) => address,
        }
    }
}

#[derive(Debug, Arbitrary)]
pub(crate) struct Entry {
    op: u8,
    flags: u8,
    len: u16,
    odd: Option<u32>,
    address: Place,
    device: u32,
}

#[derive(Debug, Arbitrary)]
pub(crate) enum Request {
    Entries {
        flags: u8,
        entries: Vec<Entry>,
    },
    Pages {
        flags: u8,
        op: u8,
        list_flags: u8,
        device: u16,
        pages: Vec<Place>,
    },
    Bytes(Vec<u8>),
    Spoilt {
        at: u8,
        value: u8,
        entry: Entry,
    },
}

#[derive(Debug, Arbitrary)]
pub(crate) struct RawDescriptor {
    pub(crate) address: Place,
    pub(crate) len: u16,
    pub(crate) long: Option<u32>,
    pub(crate) flags: u8,
    pub(crate) next: u8,
}

#[derive(Debug, Arbitrary)]
pub(crate) enum Step {
    /// A chain as a driver makes it, with its request.
    Chain {
        request: Request,
        room: u16,
        pieces: u8,
        indirect: bool,
    },
    /// Descriptors of any kind, from this slot on.
    Raw {
        slot: u8,
        descriptors: Vec<RawDescriptor>,
    },
    /// A head on the available ring.
    Head(u16),
    /// The available index moves by so much.
    Index(i8),
    /// The device serves the queue.
    Serve,
}

/// Of sixteen bytes fifteen are given a sound meaning: what is wrong everywhere is refused at the first check.
fn mostly(byte: u8, sound: impl Fn(u8) -> u8, any: impl Fn(u8) -> u8) -> u8 {
    if byte >> 4 == 15 {
        any(byte)
    } else {
        sound(byte)
    }
}

impl Entry {
    fn wire(&self) -> CopyEntry {
        let len = self.odd.unwrap_or(u32::from(self.len & 0x3ff8));
        let address = self.address.address();
        let mut entry = CopyEntry::new(Op::Nop, address, u64::from(self.device) & 0x21_fff8, len);
        entry.op = mostly(self.op, |op| 1 + op % 4, |op| op % 7);
        entry.flags = mostly(self.flags, |_| 0, |flags| flags & 15);
        entry
    }
}

impl Request {
    pub(crate) fn bytes(&self, generation: u64) -> Vec<u8> {
        let header = |kind, flags: u8, count: usize| {
            BatchHeader::new(
                kind,
                BatchFlags(mostly(flags, |flags| flags & 7, |flags| flags)),
                count as u32,
                99,
                generation,
            )
        };
        match self {
            Self::Entries { flags, entries } => {
                let entries: Vec<CopyEntry> = entries.iter().take(64).map(Entry::wire).collect();
                let header = header(BatchKind::Entries, *flags, entries.len());
                [header.as_bytes(), entries.as_bytes()].concat()
            }
            Self::Pages {
                flags,
                op,
                list_flags,
                device,
                pages,
            } => {
                let pages: Vec<u64> = pages.iter().take(128).map(|page| page.address()).collect();
                let header = header(BatchKind::PageList, *flags, pages.len());
                let mut list = PageList::new(Op::Nop, 12, 0);
                let page = |device: u16| u64::from(device % 480) * 4096;
                list.device_address = match device >> 8 {
                    0..=230 => page(*device).into(),
                    _ => (u64::from(*device) * 1024).into(),
                };
                list.op = mostly(*op, |op| 1 + op % 2, |op| op % 4);
                list.flags = mostly(*list_flags, |_| 0, |flags| flags & 15);
                let addresses: Vec<u8> = pages.iter().flat_map(|at| at.to_le_bytes()).collect();
                [header.as_bytes(), list.as_bytes(), &addresses].concat()
            }
            Self::Bytes(bytes) => bytes.clone(),
            Self::Spoilt { at, value, entry } => {
                let header = header(BatchKind::Entries, 4, 1);
                let mut bytes = [header.as_bytes(), entry.wire().as_bytes()].concat();
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *value;
                bytes
            }
        }
    }
}
