// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory of a hart: the addresses of a context, as they are in one section.

use std::{
    sync::atomic::{
        AtomicU8, AtomicU16, AtomicU32, AtomicU64,
        Ordering::{Acquire, Release, SeqCst},
    },
    time::Instant,
};

use hmm_hart::{Amo, Memory, Width};
use hmm_protocol::FaultAccess;
use vm_memory::{AtomicInteger, VolatileMemory, VolatileSlice};

use crate::{jobs::access::Access, mmu};

/// Pages whose place is remembered, for each kind of access.
const PLACES: usize = 16;
/// Kinds of access: to fetch, to read, to write, atomically.
const KINDS: usize = 4;
const PAGE: u64 = 4096;

/// What the kinds are in a report.
const ACCESSES: [FaultAccess; KINDS] = [
    FaultAccess::FETCH,
    FaultAccess::READ,
    FaultAccess::WRITE,
    FaultAccess::ATOMIC,
];

/// Which of [`ACCESSES`].
#[derive(Clone, Copy)]
enum Kind {
    Fetch,
    Read,
    Write,
    Atomic,
}

/// An access that missed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Miss {
    /// Where and why.
    pub(super) miss: mmu::Miss,
    /// Bytes that the instruction wants from there on.
    pub(super) wanted: u64,
}

/// Says that an access missed. [`View::miss`] has the rest, so that what each access returns is small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missed;

/// Where a page is.
type Place<'a> = (u64, VolatileSlice<'a>);

/// The addresses of a context within one section. It remembers where pages are; a change of the page tables waits for the section's
/// end, so what it remembers is true until then.
pub(super) struct View<'a> {
    memory: &'a dyn Access,
    started: Instant,
    places: [[Option<Place<'a>>; PLACES]; KINDS],
    miss: Option<Miss>,
}

impl<'a> View<'a> {
    /// A view of `memory` for a program that began at `started`.
    pub(super) fn new(memory: &'a dyn Access, started: Instant) -> Self {
        Self {
            memory,
            started,
            places: [const { [const { None }; PLACES] }; KINDS],
            miss: None,
        }
    }

    /// The access that missed, after [`Missed`].
    pub(super) fn miss(&self) -> Option<Miss> {
        self.miss
    }

    /// What `access` does with an aligned value.
    #[inline]
    fn with<T: AtomicInteger, R>(
        &mut self,
        address: u64,
        kind: Kind,
        access: impl FnOnce(&T) -> R,
    ) -> Result<R, Missed> {
        let page = address / PAGE;
        if let Some((known, slice)) = &self.places[kind as usize][page as usize % PLACES]
            && *known == page
            && let Ok(value) = slice.get_atomic_ref((address % PAGE) as usize)
        {
            return Ok(access(value));
        }
        let len = size_of::<T>() as u64;
        let (slice, offset) = self.find(address, len, kind)?;
        // A page of the guest begins at a multiple of its size here, too, so what is aligned there is aligned here.
        match slice.get_atomic_ref(offset) {
            Ok(value) => Ok(access(value)),
            Err(_) => Err(self.missed(address, len, kind)),
        }
    }

    /// Where `len` bytes of a page are. The page is remembered.
    #[cold]
    #[inline(never)]
    fn find(
        &mut self,
        address: u64,
        len: u64,
        kind: Kind,
    ) -> Result<(VolatileSlice<'a>, usize), Missed> {
        let access = ACCESSES[kind as usize];
        let page = address / PAGE;
        let offset = address % PAGE;
        if let Ok(slice) = self.memory.span(page * PAGE, PAGE, access)
            && offset + len <= slice.len() as u64
        {
            self.places[kind as usize][page as usize % PLACES] = Some((page, slice));
            return Ok((slice, offset as usize));
        }
        // Not the whole page: it may be poisoned elsewhere, or lie in two regions.
        let slice = self.memory.span(address, len, access).map_err(|miss| {
            self.miss = Some(Miss { miss, wanted: len });
            Missed
        })?;
        match slice.len() as u64 >= len {
            true => Ok((slice, 0)),
            // An access over the border of two regions of the guest's memory, within a page.
            false => Err(self.missed(address.wrapping_add(slice.len() as u64), len, kind)),
        }
    }

    /// An access that the guest's memory does not allow.
    #[cold]
    fn missed(&mut self, address: u64, wanted: u64, kind: Kind) -> Missed {
        let miss = mmu::Miss {
            address,
            access: ACCESSES[kind as usize],
            reason: mmu::MissReason::BadTarget,
        };
        self.miss = Some(Miss { miss, wanted });
        Missed
    }

    /// A load that is not aligned: byte by byte, from two pages perhaps.
    #[cold]
    fn load_bytes(&mut self, address: u64, width: Width) -> Result<u64, Missed> {
        let mut value = 0;
        for index in 0..width.bytes() {
            let at = address.wrapping_add(index);
            let byte = self.with(at, Kind::Read, |byte: &AtomicU8| byte.load(Acquire))?;
            value |= u64::from(byte) << (8 * index);
        }
        Ok(value)
    }

    /// A store that is not aligned: all bytes are found before the first one is written.
    #[cold]
    fn store_bytes(&mut self, address: u64, width: Width, value: u64) -> Result<(), Missed> {
        let addresses = (0..width.bytes()).map(|index| address.wrapping_add(index));
        for at in addresses.clone() {
            self.with(at, Kind::Write, |_: &AtomicU8| ())?;
        }
        // What was found once in a section is found again.
        for (at, value) in addresses.zip(value.to_le_bytes()) {
            self.with(at, Kind::Write, |byte: &AtomicU8| {
                byte.store(value, Release)
            })?;
        }
        Ok(())
    }
}

impl Memory for View<'_> {
    type Miss = Missed;

    #[inline]
    fn fetch(&mut self, address: u64) -> Result<u32, Missed> {
        if address.is_multiple_of(4) {
            return self.with(address, Kind::Fetch, load_word);
        }
        let low = self.with(address, Kind::Fetch, load_half)?;
        if address % PAGE == PAGE - 2 {
            return Ok(low.into());
        }
        let high = self.with(address.wrapping_add(2), Kind::Fetch, load_half)?;
        Ok(u32::from(low) | u32::from(high) << 16)
    }

    #[inline]
    fn load(&mut self, address: u64, width: Width) -> Result<u64, Missed> {
        if !width.is_aligned(address) {
            return self.load_bytes(address, width);
        }
        match width {
            Width::Byte => self.with(address, Kind::Read, |byte: &AtomicU8| {
                byte.load(Acquire).into()
            }),
            Width::Half => self.with(address, Kind::Read, |half| load_half(half).into()),
            Width::Word => self.with(address, Kind::Read, |word| load_word(word).into()),
            Width::Double => self.with(address, Kind::Read, |double: &AtomicU64| {
                u64::from_le(double.load(Acquire))
            }),
        }
    }

    #[inline]
    fn store(&mut self, address: u64, width: Width, value: u64) -> Result<(), Missed> {
        if !width.is_aligned(address) {
            return self.store_bytes(address, width, value);
        }
        match width {
            Width::Byte => self.with(address, Kind::Write, |byte: &AtomicU8| {
                byte.store(value as u8, Release);
            }),
            Width::Half => self.with(address, Kind::Write, |half: &AtomicU16| {
                half.store((value as u16).to_le(), Release);
            }),
            Width::Word => self.with(address, Kind::Write, |word: &AtomicU32| {
                word.store((value as u32).to_le(), Release);
            }),
            Width::Double => self.with(address, Kind::Write, |double: &AtomicU64| {
                double.store(value.to_le(), Release);
            }),
        }
    }

    fn amo(&mut self, address: u64, width: Width, amo: Amo, operand: u64) -> Result<u64, Missed> {
        match width {
            Width::Double => {
                self.with(address, Kind::Atomic, |word| amo_double(word, amo, operand))
            }
            _ => self.with(address, Kind::Atomic, |word| {
                amo_word(word, amo, operand as u32).into()
            }),
        }
    }

    fn load_reserved(&mut self, address: u64, width: Width) -> Result<u64, Missed> {
        match width {
            Width::Double => self.with(address, Kind::Atomic, |word: &AtomicU64| {
                u64::from_le(word.load(SeqCst))
            }),
            _ => self.with(address, Kind::Atomic, |word: &AtomicU32| {
                u32::from_le(word.load(SeqCst)).into()
            }),
        }
    }

    fn compare_exchange(
        &mut self,
        address: u64,
        width: Width,
        expected: u64,
        new: u64,
    ) -> Result<bool, Missed> {
        match width {
            Width::Double => self.with(address, Kind::Atomic, |word: &AtomicU64| {
                let (expected, new) = (expected.to_le(), new.to_le());
                word.compare_exchange(expected, new, SeqCst, SeqCst).is_ok()
            }),
            _ => self.with(address, Kind::Atomic, |word: &AtomicU32| {
                let (expected, new) = ((expected as u32).to_le(), (new as u32).to_le());
                word.compare_exchange(expected, new, SeqCst, SeqCst).is_ok()
            }),
        }
    }

    fn time(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn load_half(half: &AtomicU16) -> u16 {
    u16::from_le(half.load(Acquire))
}

fn load_word(word: &AtomicU32) -> u32 {
    u32::from_le(word.load(Acquire))
}

// Guests are little-endian, and so is every processor that this device runs on: the operations that depend on it work on values
// as they are.

fn amo_double(word: &AtomicU64, amo: Amo, operand: u64) -> u64 {
    let signed = operand.cast_signed();
    let with = |choose: fn(i64, i64) -> i64| {
        let changed = |now: u64| Some(choose(now.cast_signed(), signed).cast_unsigned());
        match word.fetch_update(SeqCst, SeqCst, changed) {
            Ok(before) | Err(before) => before,
        }
    };
    match amo {
        Amo::Swap => word.swap(operand, SeqCst),
        Amo::Add => word.fetch_add(operand, SeqCst),
        Amo::Xor => word.fetch_xor(operand, SeqCst),
        Amo::And => word.fetch_and(operand, SeqCst),
        Amo::Or => word.fetch_or(operand, SeqCst),
        Amo::Min => with(i64::min),
        Amo::Max => with(i64::max),
        Amo::MinUnsigned => word.fetch_min(operand, SeqCst),
        Amo::MaxUnsigned => word.fetch_max(operand, SeqCst),
    }
}

fn amo_word(word: &AtomicU32, amo: Amo, operand: u32) -> u32 {
    let signed = operand.cast_signed();
    let with = |choose: fn(i32, i32) -> i32| {
        let changed = |now: u32| Some(choose(now.cast_signed(), signed).cast_unsigned());
        match word.fetch_update(SeqCst, SeqCst, changed) {
            Ok(before) | Err(before) => before,
        }
    };
    match amo {
        Amo::Swap => word.swap(operand, SeqCst),
        Amo::Add => word.fetch_add(operand, SeqCst),
        Amo::Xor => word.fetch_xor(operand, SeqCst),
        Amo::And => word.fetch_and(operand, SeqCst),
        Amo::Or => word.fetch_or(operand, SeqCst),
        Amo::Min => with(i32::min),
        Amo::Max => with(i32::max),
        Amo::MinUnsigned => word.fetch_min(operand, SeqCst),
        Amo::MaxUnsigned => word.fetch_max(operand, SeqCst),
    }
}
