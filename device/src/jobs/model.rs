// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Works against a model: memory in scattered pages that are absent until they are asked for, and executors that must leave at
//! random.

use std::{
    cell::{Cell, RefCell},
    time::Instant,
};

use hmm_protocol::{FaultAccess, Job, JobFlags, JobKind, MapFlags, Status};
use proptest::prelude::*;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use super::{
    access::Access,
    parts::parts,
    work::{End, Step, Work},
};
use crate::mmu::{Look, Miss, MissReason};

const PAGE: u64 = 4096;
const PAGES: u64 = 16;
/// Where the memory is in the context.
const START: u64 = 0x7f00_0000_0000;
const BYTES: usize = (PAGE * PAGES) as usize;

/// Memory whose pages lie in reverse order, so that none is next to its neighbour.
struct Scattered {
    memory: GuestMemoryMmap,
    permitted: RefCell<[MapFlags; PAGES as usize]>,
    random: Cell<u64>,
    misses: Cell<u32>,
}

impl Scattered {
    fn new(bytes: &[u8], seed: u64) -> Self {
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), BYTES)]).expect("anonymous memory");
        let this = Self {
            memory,
            permitted: RefCell::default(),
            random: Cell::new(seed | 1),
            misses: Cell::new(0),
        };
        for (page, bytes) in bytes.chunks(PAGE as usize).enumerate() {
            this.host(page as u64, 0, PAGE).copy_from(bytes);
        }
        this
    }

    fn host(&self, page: u64, within: u64, len: u64) -> VolatileSlice<'_> {
        let at = (PAGES - 1 - page) * PAGE + within;
        self.memory
            .get_slice(GuestAddress(at), len as usize)
            .expect("in the memory")
    }

    fn contents(&self) -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        for (page, bytes) in bytes.chunks_mut(PAGE as usize).enumerate() {
            self.host(page as u64, 0, PAGE).copy_to(bytes);
        }
        bytes
    }

    fn chance(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.set(state);
        state
    }

    /// Runs the only part of a job to its end. Each miss is answered, and takes another page away.
    fn run(&self, kind: JobKind, flags: JobFlags, arguments: &[u64]) -> (End, Box<dyn Work>) {
        let job = Job::new(kind, flags, 1, 2, 3, arguments);
        let mut work = parts(kind, &job, Instant::now()).pop().expect("one part");
        for _ in 0..100_000 {
            match work.run(self) {
                Step::Again => {}
                Step::Ended(end) => return (end, work),
                Step::Missed { miss, wanted } => {
                    assert!(wanted >= 1);
                    self.misses.set(self.misses.get() + 1);
                    let Some(page) = page_of(miss.address) else {
                        return (End::failed(Status::Unmapped, miss.address), work);
                    };
                    let mut permitted = self.permitted.borrow_mut();
                    let victim = self.chance() % PAGES;
                    if victim != page && self.chance().is_multiple_of(4) {
                        permitted[victim as usize] = MapFlags::default();
                    }
                    permitted[page as usize] = permitted[page as usize].union(needed(miss.access));
                }
            }
        }
        panic!("the job does not end");
    }
}

fn page_of(address: u64) -> Option<u64> {
    let page = address.checked_sub(START)? / PAGE;
    (page < PAGES).then_some(page)
}

fn needed(access: FaultAccess) -> MapFlags {
    match access {
        FaultAccess::WRITE => MapFlags(3),
        FaultAccess::ATOMIC => MapFlags(7),
        _ => MapFlags(1),
    }
}

impl Access for Scattered {
    fn span(&self, address: u64, len: u64, access: FaultAccess) -> Result<VolatileSlice<'_>, Miss> {
        let miss = |reason| Miss {
            address,
            access,
            reason,
        };
        let page = page_of(address).ok_or(miss(MissReason::Unmapped))?;
        let permitted = self.permitted.borrow()[page as usize];
        if permitted == MapFlags::default() {
            return Err(miss(MissReason::Unmapped));
        }
        if !permitted.contains(needed(access)) {
            return Err(miss(MissReason::Forbidden));
        }
        let within = address % PAGE;
        Ok(self.host(page, within, len.min(PAGE - within)))
    }

    fn look(&self, address: u64) -> Look {
        Look {
            flags: page_of(address).map_or(MapFlags::default(), |page| {
                self.permitted.borrow()[page as usize]
            }),
            bytes: PAGE - address % PAGE,
        }
    }

    fn should_leave(&self) -> bool {
        self.chance().is_multiple_of(4)
    }
}

/// Bytes that tell their place.
fn bytes(seed: u64) -> Vec<u8> {
    (0..BYTES as u64)
        .map(|at| (at.wrapping_mul(seed | 1) >> 5) as u8)
        .collect()
}

prop_compose! {
    /// A range within the memory, and room for another one of the same length that does not overlap it.
    fn ranges()(a in 0..BYTES, b in 0..BYTES, len in 1..BYTES) -> (usize, usize, usize) {
        let (low, high) = (a.min(b), a.max(b));
        let len = len.min((high - low).max(1)).min(BYTES - high);
        if a < b { (low, high, len) } else { (high, low, len) }
    }
}

proptest! {
    #[test]
    fn fill_repeats_the_pattern((at, _, len) in ranges(), pattern: u64, seed: u64) {
        let mut expected = bytes(seed);
        let memory = Scattered::new(&expected, seed);
        let arguments = [START + at as u64, len as u64, pattern];
        let (end, work) = memory.run(JobKind::Fill, JobFlags::default(), &arguments);
        prop_assert_eq!(end, End::OK);
        for index in 0..len {
            expected[at + index] = pattern.to_le_bytes()[index % 8];
        }
        prop_assert!(memory.contents() == expected);
        prop_assert_eq!(work.amount(), len as u64);
    }

    #[test]
    fn copy_copies_every_byte_and_no_other((to, from, len) in ranges(), seed: u64) {
        prop_assume!(to.abs_diff(from) >= len);
        let mut expected = bytes(seed);
        let memory = Scattered::new(&expected, seed);
        let arguments = [START + to as u64, START + from as u64, len as u64];
        let (end, work) = memory.run(JobKind::Copy, JobFlags::default(), &arguments);
        prop_assert_eq!(end, End::OK);
        expected.copy_within(from..from + len, to);
        prop_assert!(memory.contents() == expected);
        prop_assert_eq!(work.amount(), len as u64);
    }

    #[test]
    fn crc32c_is_that_of_the_bytes((at, _, len) in ranges(), before: u32, seed: u64) {
        let bytes = bytes(seed);
        let memory = Scattered::new(&bytes, seed);
        let arguments = [START + at as u64, len as u64, u64::from(before)];
        let (end, work) = memory.run(JobKind::Crc32c, JobFlags::default(), &arguments);
        prop_assert_eq!(end, End::OK);
        prop_assert_eq!(work.result(), u64::from(bitwise_crc32c(before, &bytes[at..at + len])));
    }

    #[test]
    fn atomic_add_adds_once_to_each_word(
        first in 0usize..BYTES / 8, words in 1usize..600, wide: bool, add: u64, seed: u64,
    ) {
        let width = if wide { 8 } else { 4 };
        let at = first * width;
        let words = words.min((BYTES - at) / width);
        let mut expected = bytes(seed);
        let memory = Scattered::new(&expected, seed);
        let arguments = [START + at as u64, words as u64, add, width as u64];
        let (end, work) = memory.run(JobKind::AtomicAdd, JobFlags::default(), &arguments);
        prop_assert_eq!(end, End::OK);
        let mut before = None;
        for word in expected[at..at + words * width].chunks_mut(width) {
            let value = word.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
            before.get_or_insert(value);
            word.copy_from_slice(&value.wrapping_add(add).to_le_bytes()[..width]);
        }
        prop_assert!(memory.contents() == expected);
        prop_assert_eq!(Some(work.result()), before);
        prop_assert_eq!(work.amount(), words as u64);
    }

    #[test]
    fn walk_visits_every_node_once(
        mut nodes in proptest::collection::vec(0usize..(BYTES - 64) / 40, 1..200),
        next_at in 0usize..24, limit in 1u64..300, add in any::<Option<u64>>(), seed: u64,
    ) {
        nodes.sort_unstable();
        nodes.dedup();
        // An order of their own, at addresses that are not aligned, some of them across pages.
        nodes.sort_by_key(|node| (*node as u64).wrapping_mul(seed | 1));
        let value_at = next_at + 8;
        let at = |node: usize| node * 40 + 3;
        let mut expected = bytes(seed);
        for (index, node) in nodes.iter().enumerate() {
            let next = nodes.get(index + 1).map_or(0, |next| START + at(*next) as u64);
            let place = at(*node) + next_at;
            expected[place..place + 8].copy_from_slice(&next.to_le_bytes());
        }
        let memory = Scattered::new(&expected, seed);
        let flags = if add.is_some() { JobFlags::WRITE } else { JobFlags::default() };
        let first = START + at(nodes[0]) as u64;
        let arguments = [first, next_at as u64, limit, value_at as u64, add.unwrap_or(0)];
        let (end, work) = memory.run(JobKind::Walk, flags, &arguments);
        let visited = nodes.len().min(limit as usize);
        let expected_end = match nodes.get(visited) {
            Some(node) => End::failed(Status::Limit, START + at(*node) as u64),
            None => End::OK,
        };
        prop_assert_eq!(end, expected_end);
        let mut sum = 0u64;
        for node in &nodes[..visited] {
            let place = at(*node) + value_at;
            let word: [u8; 8] = expected[place..place + 8].try_into().expect("8 bytes");
            let value = u64::from_le_bytes(word);
            sum = sum.wrapping_add(value);
            let after = value.wrapping_add(add.unwrap_or(0)).to_le_bytes();
            expected[place..place + 8].copy_from_slice(&after);
        }
        prop_assert_eq!(work.result(), sum);
        prop_assert_eq!(work.amount(), visited as u64);
        prop_assert!(memory.contents() == expected);
    }

    #[test]
    fn probe_counts_what_is_mapped(
        permitted in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(3), Just(7), Just(11), Just(15)], PAGES as usize),
        wanted in 0u8..16, before in 0u64..4, seed: u64,
    ) {
        let memory = Scattered::new(&[], seed);
        for (page, flags) in memory.permitted.borrow_mut().iter_mut().zip(&permitted) {
            *page = MapFlags(*flags);
        }
        let arguments = [START - before * PAGE, (PAGES + before + 2) * PAGE, u64::from(wanted)];
        let (end, work) = memory.run(JobKind::Probe, JobFlags::default(), &arguments);
        prop_assert_eq!(end, End::OK);
        let count = permitted.iter().filter(|flags| **flags != 0 && **flags & wanted == wanted).count();
        prop_assert_eq!(work.result(), count as u64);
        prop_assert_eq!(work.amount(), PAGES + before + 2);
        prop_assert_eq!(memory.misses.get(), 0);
    }
}

/// The CRC by its definition, bit by bit.
fn bitwise_crc32c(before: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!before, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[test]
fn crc32c_has_the_published_value() {
    assert_eq!(bitwise_crc32c(0, b"123456789"), 0xe306_9283);
}

#[test]
fn a_pointer_out_of_the_context_ends_the_walk_there() {
    let mut bytes = vec![0; BYTES];
    bytes[16..24].copy_from_slice(&(1u64 << 57).to_le_bytes());
    let memory = Scattered::new(&bytes, 5);
    let (end, work) = memory.run(JobKind::Walk, JobFlags::default(), &[START + 16, 0, 10, 8]);
    assert_eq!(end, End::failed(Status::BadAddress, 1 << 57));
    assert_eq!(work.amount(), 1);
}

#[test]
fn ranges_that_end_outside_name_the_first_bad_address() {
    let memory = Scattered::new(&vec![0; BYTES], 7);
    let end_of_memory = START + BYTES as u64;
    for (kind, arguments) in [
        (JobKind::Fill, vec![end_of_memory - 5000, 9000, 1]),
        (JobKind::Crc32c, vec![end_of_memory - 5000, 9000, 0]),
        (JobKind::Copy, vec![end_of_memory - 5000, START, 9000]),
        (JobKind::AtomicAdd, vec![end_of_memory - 4096, 1024, 1, 8]),
    ] {
        let (end, _) = memory.run(kind, JobFlags::default(), &arguments);
        assert_eq!(
            end,
            End::failed(Status::Unmapped, end_of_memory),
            "{kind:?}"
        );
    }
}
